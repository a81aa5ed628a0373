"""What `deploy/observability` gives to Prometheus, checked by Prometheus' own tool."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROMETHEUS = Path(__file__).parent.parent / "deploy" / "observability" / "prometheus"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def promtool(*arguments):
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_the_configuration_and_its_rules_are_accepted():
    told = promtool("check", "config", "prometheus.yml")
    assert "2 rule files found" in told, told


@needs_promtool
def test_alerts_fire_when_a_promise_is_broken_and_not_before():
    assert "SUCCESS" in promtool("test", "rules", "tests/alerts.yml")
