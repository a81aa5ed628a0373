"""HTTPS and WSS: in one process, and through Caddy."""

import json
import os
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from server import BARE, Program, Served, free_port, wait_until

pytestmark = pytest.mark.skipif(
    "DUOLOGUE_BIN" not in os.environ, reason="DUOLOGUE_BIN names the program (`cargo xtask test` sets it)"
)
REPOSITORY = Path(__file__).parent.parent


def data_dir(folder):
    """A data folder of the test's own, with this machine's models."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "duologue"
    there = Path(os.environ.get("DUOLOGUE_DATA_DIR") or home)
    (folder / "voicepacks").symlink_to(there / "voicepacks")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return data_dir(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def secure(home, tmp_path_factory):
    """A server with a certificate of its own making."""
    one = Served(
        tmp_path_factory.mktemp("duologue"),
        "--tls-self-signed",
        *BARE,
        scheme="https",
        env={"DUOLOGUE_DATA_DIR": str(home)},
    )
    try:
        one.wait_until_told("Duologue is ready")
        yield one
    finally:
        one.stop()


def trusting(certificate):
    return ssl.create_default_context(cafile=certificate)


def a_typed_question_is_answered_aloud(url, context):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hello."}]}
    with connect(url.replace("https", "wss", 1) + "/v1/realtime", ssl=context, max_size=None) as socket:
        socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
        socket.send(json.dumps({"type": "response.create"}))
        sound = 0
        while (event := json.loads(socket.recv(timeout=90)))["type"] != "response.done":
            if event["type"] == "response.output_audio.delta":
                sound += len(event["delta"])
        assert event["response"]["status"] == "completed"
        assert sound > 1000


def test_who_trusts_the_certificate_talks_over_wss(secure, home):
    context = trusting(home / "tls/certificate.pem")
    page = httpx.get(secure.url, verify=context)
    assert page.status_code == 200 and "Duologue" in page.text
    a_typed_question_is_answered_aloud(secure.url, context)
    log = secure.log.read_text()
    assert "Open https://localhost:" in log and "fingerprint" in log


def test_who_does_not_trust_the_certificate_is_kept_out_by_the_client(secure):
    with pytest.raises(httpx.ConnectError, match="self-signed|self signed"):
        httpx.get(secure.url)


def test_plain_http_at_the_tls_port_is_sent_to_https(secure, home):
    plain = secure.url.replace("https", "http", 1) + "/v1/models?x=1"
    answer = httpx.get(plain)
    assert answer.status_code == 308
    assert answer.headers["location"] == secure.url + "/v1/models?x=1"
    assert "wss://" in answer.text
    assert httpx.get(plain, follow_redirects=True, verify=trusting(home / "tls/certificate.pem")).status_code == 200


def test_a_connection_that_says_nothing_keeps_nobody_out(secure, home):
    host, port = secure.url.removeprefix("https://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    try:
        assert httpx.get(secure.url, verify=trusting(home / "tls/certificate.pem"), timeout=5).status_code == 200
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("no.pem", "tls/key.pem", "cannot read the certificate"),
        ("tls/certificate.pem", "no.pem", "cannot read the private key"),
        ("tls/key.pem", "tls/key.pem", "holds no certificate"),
        ("tls/certificate.pem", "tls/certificate.pem", "holds no private key"),
    ],
)
def test_files_that_cannot_be_used_are_named_before_anything_is_loaded(secure, home, certificate, key, words):
    command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", "127.0.0.1:0"]
    command += ["--tls-cert", str(home / certificate), "--tls-key", str(home / key)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert told.returncode != 0
    assert words in told.stderr, told.stderr


@pytest.mark.skipif("CADDY" not in os.environ, reason="CADDY names the program (`cargo xtask test` makes it)")
def test_the_caddyfile_that_is_shipped_serves_https_and_wss(tmp_path):
    behind = Served(tmp_path, *BARE)
    port, plain = free_port(), free_port()
    # Only what a test must do differently: ports of its own, and nothing installed into the system.
    (tmp_path / "Caddyfile").write_text(
        f"{{\n\thttp_port {plain}\n\tadmin off\n\tskip_install_trust\n}}\nimport {REPOSITORY}/deploy/Caddyfile\n"
    )
    caddy = Program(
        tmp_path / "caddy.log",
        [os.environ["CADDY"], "run", "--adapter", "caddyfile", "--config", str(tmp_path / "Caddyfile")],
        XDG_DATA_HOME=str(tmp_path / "data"),
        XDG_CONFIG_HOME=str(tmp_path / "config"),
        DUOLOGUE_DOMAIN=f"localhost:{port}",
        DUOLOGUE_UPSTREAM=behind.url.removeprefix("http://"),
    )
    try:
        behind.wait_until_told("Duologue is ready")
        root = tmp_path / "data/caddy/pki/authorities/local/root.crt"
        wait_until(root.is_file, 30, "Caddy has made its authority")
        url = f"https://localhost:{port}"
        wait_until(lambda: httpx.get(url, verify=trusting(root)).status_code == 200, 30, "Caddy answers")
        a_typed_question_is_answered_aloud(url, trusting(root))
    finally:
        caddy.stop()
        behind.stop()
