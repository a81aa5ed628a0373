"""Who is let in: keys, client secrets, limits, pages of other sites, sizes; and that no secret is told."""

import asyncio
import json
import os
import signal
import subprocess
import sys

try:
    import pty
except ImportError:
    pty = None

import httpx
import openai
import pytest
import websockets
from openai import AsyncOpenAI, OpenAI

from caller import caller
from server import Served, free_port, wait_until

pytestmark = pytest.mark.skipif(
    "DUOLOGUE_BIN" not in os.environ, reason="DUOLOGUE_BIN names the program (`cargo xtask test` sets it)"
)

# Nobody thinks or listens here: it is about who is let in. The models elsewhere are never asked.
NOWHERE = "http://127.0.0.1:9/v1"
EMPTY = ["--voice", "tone", "--vad", "light:0", "--no-end-of-turn", "--asr-url", NOWHERE]
EMPTY += ["--llm-url", NOWHERE, "--llm-model", "none"]

ADA = "ada-key-0123456789abcdef"
BOB = "bob-key-0123456789abcdef"
KIOSK = "kiosk-key-0123456789abcdef"
SLOW = "slow-key-0123456789abcdef"
SMALL = "small-key-0123456789abcdef"
SIGNING = "a-signing-secret-of-more-than-32-characters"
KEYS = f"""
ada: {ADA}
bob: {BOB}
kiosk: {{key: {KIOSK}, max-sessions: 1}}
slow: {{key: {SLOW}, requests-per-minute: 3}}
small: {{key: {SMALL}, bytes-per-minute: 10000}}
"""
# All that must not be told. Of each, a server has one.
SECRETS = {
    "DUOLOGUE_API_KEY": "environment-key-0123456789",
    "DUOLOGUE_SIGNING_SECRET": SIGNING,
    "DUOLOGUE_LLM_API_KEY": "secret-of-the-language-model",
    "DUOLOGUE_ASR_API_KEY": "secret-of-the-recognizer",
}


def ready(served):
    served.wait_until_told("Duologue is ready")
    return served


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    file.write_text(KEYS)
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def locked(keys, tmp_path_factory):
    env = SECRETS | {"DUOLOGUE_LOG": "trace"}
    one = Served(tmp_path_factory.mktemp("access"), *EMPTY, "--api-keys", str(keys), "--cors-origin", "https://app.example", env=env)
    try:
        yield ready(one)
    finally:
        one.stop()


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory):
    one = Served(tmp_path_factory.mktemp("access"), *EMPTY)
    try:
        yield ready(one)
    finally:
        one.stop()


def client(served, key, kind=OpenAI):
    sockets = served.url.replace("http", "ws", 1) + "/v1"
    return kind(api_key=key, base_url=f"{served.url}/v1", websocket_base_url=sockets, max_retries=0)


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def socket(served, **more):
    return websockets.connect(served.url.replace("http", "ws", 1) + "/v1/realtime", **more)


def run(talk):
    asyncio.run(asyncio.wait_for(talk, 60))


async def created(connection):
    event = json.loads(await connection.recv())
    assert event["type"] == "session.created", event
    return event["session"]


def error_of(answer, status, code):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code and error["message"] and "type" in error
    return error


def test_the_stock_client_is_let_in_with_a_key_and_told_when_it_is_wrong(locked):
    assert client(locked, ADA).models.list().data
    assert client(locked, SECRETS["DUOLOGUE_API_KEY"]).models.list().data
    with pytest.raises(openai.AuthenticationError) as refused:
        client(locked, "none-of-them-0123456789").models.list()
    assert refused.value.code == "invalid_api_key"
    answer = httpx.get(f"{locked.url}/v1/models")
    assert error_of(answer, 401, "invalid_api_key")["type"] == "invalid_request_error"
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/realtime"),
        ("GET", "/v1/realtime/transports"),
        ("GET", "/v1/realtime/ice_servers"),
        ("POST", "/v1/realtime/calls"),
        ("POST", "/v1/realtime/calls/rtc_1"),
        ("DELETE", "/v1/realtime/calls/rtc_1"),
        ("POST", "/v1/realtime/calls/rtc_1/hangup"),
        ("POST", "/v1/realtime/client_secrets"),
        ("POST", "/v1/livekit/token"),
        ("POST", "/v1/audio/speech"),
        ("POST", "/v1/audio/transcriptions"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tone"),
        ("GET", "/metrics"),
    ],
)
def test_every_endpoint_asks_for_a_key(locked, method, path):
    error_of(httpx.request(method, locked.url + path), 401, "invalid_api_key")
    wrong = httpx.request(method, locked.url + path, headers=bearer("none-of-them-0123456789"))
    error_of(wrong, 401, "invalid_api_key")


def test_health_and_the_page_need_no_key(locked):
    for path in ["/healthz", "/readyz", "/", "/app.js"]:
        assert httpx.get(locked.url + path).status_code == 200, path


def test_a_session_begins_with_a_key_in_the_header_or_among_the_subprotocols(locked):
    async def talk():
        async with client(locked, ADA, AsyncOpenAI).realtime.connect(model="duologue") as connection:
            assert (await connection.recv()).type == "session.created"
        async with socket(locked, subprotocols=["realtime", f"openai-insecure-api-key.{ADA}"]) as browser:
            assert browser.subprotocol == "realtime"
            await created(browser)
        for more in [{}, {"subprotocols": ["realtime", "openai-insecure-api-key.nonsense"]}]:
            with pytest.raises(websockets.InvalidStatus) as refused:
                await socket(locked, **more)
            assert refused.value.response.status_code == 401

    run(talk())


def test_a_client_secret_begins_sessions_with_its_settings_and_nothing_else(locked):
    session = {"type": "realtime", "instructions": "You sell tulips.", "audio": {"output": {"voice": "alloy"}}}
    secret = client(locked, ADA).realtime.client_secrets.create(session=session, expires_after={"anchor": "created_at", "seconds": 60})
    assert secret.value.startswith("ek_")
    assert secret.session.type == "realtime" and secret.session.instructions == "You sell tulips."

    async def talk():
        async with client(locked, secret.value, AsyncOpenAI).realtime.connect(model="duologue") as connection:
            event = await connection.recv()
            assert event.session.instructions == "You sell tulips."
            # What it was made with can be changed, as everywhere.
            await connection.session.update(session={"type": "realtime", "instructions": "You sell roses."})
            assert (await connection.recv()).session.instructions == "You sell roses."
        async with socket(locked, subprotocols=["realtime", f"openai-insecure-api-key.{secret.value}"]) as browser:
            assert (await created(browser))["instructions"] == "You sell tulips."

    run(talk())
    headers = bearer(secret.value) | {"Content-Type": "application/sdp"}
    error_of(httpx.post(f"{locked.url}/v1/realtime/calls", content="v=0", headers=headers), 400, "invalid_offer")
    for method, path in [("GET", "/v1/models"), ("POST", "/v1/audio/speech"), ("POST", "/v1/realtime/client_secrets"), ("POST", "/v1/livekit/token"), ("GET", "/metrics")]:
        error_of(httpx.request(method, locked.url + path, headers=bearer(secret.value)), 403, "insufficient_permissions")
    changed = secret.value[:-1] + ("A" if secret.value[-1] != "A" else "B")
    error_of(httpx.get(f"{locked.url}/v1/realtime", headers=bearer(changed)), 401, "invalid_api_key")


def test_a_call_begins_as_its_client_secret_says_and_belongs_to_its_key(locked):
    session = {"type": "realtime", "instructions": "You sell tulips."}
    secret = client(locked, ADA).realtime.client_secrets.create(session=session).value

    async def talk():
        async with caller(locked.url, key=secret) as call:
            _, event = await call.until("session.created")
            assert event["session"]["instructions"] == "You sell tulips."
            url = f"{locked.url}/v1/realtime/calls/{call.call_id}"
            async with httpx.AsyncClient() as asking:
                for method, path in [("POST", "/hangup"), ("DELETE", ""), ("POST", "")]:
                    other = await asking.request(method, url + path, headers=bearer(BOB) | {"Content-Type": "application/sdp"}, content="v=0")
                    error_of(other, 404, "call_not_found")
                assert (await asking.post(f"{url}/hangup", headers=bearer(ADA))).status_code == 200
            await asyncio.wait_for(call.closed.wait(), 20)

    run(talk())


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"session": {"type": "transcription"}}, "session"),
        ({"session": {"audio": {"output": {"voice": "grandma"}}}}, "session"),
        ({"session": {"instructions": "x" * 20_000}}, "session"),
        ({"expires_after": {"anchor": "created_at", "seconds": 9}}, "expires_after.seconds"),
        ({"expires_after": {"anchor": "never"}}, "expires_after.anchor"),
    ],
)
def test_a_client_secret_that_cannot_be_is_refused_when_it_is_asked_for(locked, request_, param):
    answer = httpx.post(f"{locked.url}/v1/realtime/client_secrets", json=request_, headers=bearer(ADA))
    assert error_of(answer, 400, "invalid_value")["param"] == param


def test_servers_with_the_same_keys_and_signing_secret_accept_each_others_client_secrets(locked, keys, tmp_path):
    secret = client(locked, ADA).realtime.client_secrets.create().value
    common = [*EMPTY, "--api-keys", str(keys)]
    (tmp_path / "signing").write_text(SIGNING + "\n")
    fellow = Served(tmp_path, *common, "--signing-secret-file", str(tmp_path / "signing"))
    stranger = Served(tmp_path, *common)
    try:
        asked = [httpx.get(f"{ready(one).url}/v1/realtime/transports", headers=bearer(secret)) for one in (fellow, stranger)]
        assert [answer.status_code for answer in asked] == [200, 401]
    finally:
        fellow.stop()
        stranger.stop()


def test_a_key_has_only_so_many_sessions_at_once(locked):
    async def talk():
        secret = client(locked, KIOSK).realtime.client_secrets.create().value
        async with socket(locked, additional_headers=bearer(KIOSK)) as first:
            await created(first)
            for key in [KIOSK, secret]:
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await socket(locked, additional_headers=bearer(key))
                response = refused.value.response
                assert response.status_code == 429 and int(response.headers["Retry-After"]) > 0
                assert json.loads(response.body)["error"]["code"] == "rate_limit_exceeded"
            # That of another key is not concerned.
            async with socket(locked, additional_headers=bearer(BOB)) as other:
                await created(other)
        while True:
            try:
                async with socket(locked, additional_headers=bearer(KIOSK)) as again:
                    await created(again)
                    return
            except websockets.InvalidStatus:
                await asyncio.sleep(0.05)

    run(talk())


def test_a_key_has_only_so_many_requests_a_minute(locked):
    stock = client(locked, SLOW)
    for _ in range(3):
        stock.models.list()
    with pytest.raises(openai.RateLimitError) as refused:
        stock.models.list()
    assert refused.value.code == "rate_limit_exceeded" and refused.value.type == "requests"
    assert 1 <= int(refused.value.response.headers["Retry-After"]) <= 20


def test_a_key_may_send_only_so_many_bytes_a_minute(locked):
    async def talk():
        async with socket(locked, additional_headers=bearer(SMALL)) as connection:
            await created(connection)
            for _ in range(5):
                sound = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 8_000})
                await connection.send(sound)
            error = json.loads(await connection.recv())
            assert (error["type"], error["error"]["code"]) == ("error", "rate_limit_exceeded")
        answer = httpx.get(f"{locked.url}/v1/models", headers=bearer(SMALL))
        assert error_of(answer, 429, "rate_limit_exceeded")["type"] == "bytes"
        assert int(answer.headers["Retry-After"]) >= 60

    run(talk())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one address of the loopback")
def test_without_keys_each_address_has_only_so_many_sessions_and_requests(tmp_path):
    one = Served(tmp_path, *EMPTY, "--key-max-sessions", "1", "--key-requests-per-minute", "4")

    def models(address):
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address)) as stock:
            return stock.get(f"{one.url}/v1/models")

    async def talk():
        async with socket(one, local_addr=("127.0.0.2", 0)) as first:
            await created(first)
            with pytest.raises(websockets.InvalidStatus) as refused:
                await socket(one, local_addr=("127.0.0.2", 0))
            response = refused.value.response
            assert response.status_code == 429
            assert json.loads(response.body)["error"]["code"] == "rate_limit_exceeded"
            async with socket(one, local_addr=("127.0.0.3", 0)) as other:
                await created(other)

    try:
        ready(one)
        run(talk())
        assert [models("127.0.0.2").status_code for _ in range(3)] == [200, 200, 429]
        assert models("127.0.0.4").status_code == 200
    finally:
        one.stop()


@pytest.mark.parametrize("given", [[], ["--no-webrtc"]])
def test_without_a_key_a_server_does_not_listen_to_other_machines(given):
    command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", f"0.0.0.0:{free_port()}", *EMPTY, *given]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert told.returncode != 0
    for word in ["DUOLOGUE_API_KEY", "--api-keys", "--allow-anyone"]:
        assert word in told.stderr, told.stderr


def test_a_file_of_keys_that_cannot_be_used_is_told_without_telling_a_key(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(f"ada: {ADA}\nbob: {ADA}\n")
    command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", "127.0.0.1:0", "--api-keys", str(file), *EMPTY]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert told.returncode != 0 and "keys.yaml" in told.stderr and '"bob" is the same as "ada"' in told.stderr
    assert ADA not in told.stdout + told.stderr


def test_a_page_of_another_site_cannot_use_an_open_server(unlocked):
    async def hijack(**more):
        async with socket(unlocked, **more) as connection:
            await created(connection)

    host = unlocked.url.removeprefix("http://")
    own = unlocked.url.replace("127.0.0.1", "localhost")
    run(hijack(origin=unlocked.url))
    run(hijack())
    for origin in ["https://evil.example", "http://localhost:1", "null"]:
        with pytest.raises(websockets.InvalidStatus) as refused:
            run(hijack(origin=origin))
        assert refused.value.response.status_code == 403
        # Requests that a page may send without being asked for leave.
        for kind in ["text/plain", "application/sdp", "multipart/form-data; boundary=x"]:
            for path in ["/v1/realtime/calls", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/realtime/client_secrets"]:
                answer = httpx.post(unlocked.url + path, content="x", headers={"Origin": origin, "Content-Type": kind})
                error_of(answer, 403, "origin_not_allowed")
    rebound = {"Host": f"evil.example:{host.split(':')[1]}"}
    for path in ["/", "/v1/models", "/metrics", "/v1/realtime"]:
        error_of(httpx.get(unlocked.url + path, headers=rebound), 403, "host_not_allowed")
        assert httpx.get(own + path).status_code != 403
    assert httpx.get(f"{unlocked.url}/healthz", headers=rebound).status_code == 200


def test_only_named_sites_may_read_answers(locked):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    url = f"{locked.url}/v1/realtime/calls"
    leave = httpx.options(url, headers=ask | {"Origin": "https://app.example"})
    assert leave.status_code == 204
    assert leave.headers["access-control-allow-origin"] == "https://app.example"
    assert "authorization" in leave.headers["access-control-allow-headers"]
    answer = httpx.get(f"{locked.url}/v1/models", headers={"Origin": "https://app.example"})
    assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == "https://app.example"
    for origin in ["https://evil.example", "http://app.example", "null"]:
        error_of(httpx.options(url, headers=ask | {"Origin": origin}), 403, "origin_not_allowed")
        answer = httpx.get(f"{locked.url}/v1/models", headers=bearer(ADA) | {"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("path", "bytes_", "kind"),
    [
        ("/v1/audio/speech", 600_000, "application/json"),
        ("/v1/audio/transcriptions", 27_000_000, "multipart/form-data; boundary=x"),
        ("/v1/realtime/client_secrets", 300_000, "application/json"),
        ("/v1/realtime/calls", 1_100_000, "application/sdp"),
    ],
)
def test_a_body_that_is_too_large_is_told_so(locked, path, bytes_, kind):
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' if "multipart" in kind else b'"'
    body = body.ljust(bytes_, b"x")
    answer = httpx.post(locked.url + path, content=body, headers=bearer(ADA) | {"Content-Type": kind})
    error_of(answer, 413, "request_too_large")


def test_a_head_that_is_too_large_is_told_so(locked):
    error_of(httpx.get(f"{locked.url}/v1/models", headers={"X": "x" * 60_000}), 431, "request_too_large")
    error_of(httpx.get(f"{locked.url}/v1/models?{'x' * 9_000}"), 414, "request_too_large")


def test_metrics_are_behind_the_key_or_at_an_address_of_their_own(locked, tmp_path):
    assert httpx.get(f"{locked.url}/metrics").status_code == 401
    text = httpx.get(f"{locked.url}/metrics", headers=bearer(ADA)).text
    assert 'duologue_requests_refused_total{reason="key"}' in text
    at = f"127.0.0.1:{free_port()}"
    apart = Served(tmp_path, *EMPTY, "--metrics-listen", at, env={"DUOLOGUE_API_KEY": ADA})
    try:
        ready(apart)
        wait_until(lambda: "duologue_slots_free" in httpx.get(f"http://{at}/metrics").text, 10, "slots are measured")
        assert httpx.get(f"{apart.url}/metrics", headers=bearer(ADA)).status_code == 404
    finally:
        apart.stop()


def test_no_secret_is_told(locked):
    secret = client(locked, ADA).realtime.client_secrets.create().value
    httpx.get(f"{locked.url}/v1/realtime/transports", headers=bearer(secret))
    httpx.get(f"{locked.url}/v1/models", headers=bearer("a-wrong-key-that-somebody-tried"))
    httpx.get(f"{locked.url}/v1/realtime", headers={"Sec-WebSocket-Protocol": f"realtime, openai-insecure-api-key.{ADA}"})
    told = {
        "the log": locked.log.read_text(),
        "/metrics": httpx.get(f"{locked.url}/metrics", headers=bearer(ADA)).text,
        "config show": subprocess.run(
            [os.environ["DUOLOGUE_BIN"], "config", "show", "--effective", "serve"],
            capture_output=True,
            text=True,
            env=os.environ | SECRETS | {"DUOLOGUE_REGISTRY": f"redis://:{ADA}@host:1"},
        ).stdout,
        "--help": subprocess.run([os.environ["DUOLOGUE_BIN"], "serve", "--help"], capture_output=True, text=True, env=os.environ | SECRETS).stdout,
    }
    assert "DEBUG" in told["the log"] and "ada" in told["the log"]
    assert "redis://***@host:1" in told["config show"] and "# DUOLOGUE_API_KEY: set" in told["config show"]
    for place, text in told.items():
        for one in [ADA, BOB, KIOSK, SLOW, SMALL, secret, "a-wrong-key-that-somebody-tried", *SECRETS.values()]:
            assert one not in text, f"{place} tells {one}"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_keys_are_reloaded_while_sessions_run_and_a_mistake_changes_nothing(tmp_path):
    keys, config = tmp_path / "keys.yaml", tmp_path / "serve.yaml"
    keys.write_text(f"ada: {ADA}\n")
    config.write_text(f"api-keys: {keys}\nmax-sessions: 4\n")
    one = Served(tmp_path, *EMPTY, "--config", str(config))

    def reload(told):
        before = one.log.read_text().count(told)
        one.process.send_signal(signal.SIGHUP)
        wait_until(lambda: one.log.read_text().count(told) > before, 20, told)

    def statuses():
        return [httpx.get(f"{one.url}/v1/models", headers=bearer(key)).status_code for key in (ADA, BOB)]

    async def talk():
        async with socket(one, additional_headers=bearer(ADA)) as connection:
            await created(connection)
            keys.write_text(f"bob: {BOB}\n")
            config.write_text(f"api-keys: {keys}\nmax-sessions: 5\nlog: debug\n")
            await asyncio.to_thread(reload, "the configuration is reloaded")
            assert statuses() == [401, 200]
            await connection.send(json.dumps({"type": "session.update", "session": {"type": "realtime"}}))
            assert json.loads(await connection.recv())["type"] == "session.updated"

    try:
        ready(one)
        assert statuses() == [200, 401]
        run(talk())
        log = one.log.read_text()
        assert "options=\"max-sessions\"" in log and "DEBUG" in log, log[-2000:]
        for mistake in [f"bob: {BOB}\nbob: {BOB}\n", "bob: short\n"]:
            keys.write_text(mistake)
            reload("the configuration is not reloaded")
        config.write_text("max-session: 5\n")
        reload("the configuration is not reloaded")
        assert "did you mean" in one.log.read_text()
        assert statuses() == [401, 200]
    finally:
        one.stop()


@pytest.mark.skipif(pty is None, reason="there are no terminals here")
def test_whoever_starts_a_server_at_a_terminal_is_shown_a_link_that_holds_a_key():
    near, far = pty.openpty()
    at = f"127.0.0.1:{free_port()}"
    command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", at, *EMPTY]
    server = subprocess.Popen(command, stdout=far, stderr=subprocess.DEVNULL, env=os.environ | {"DUOLOGUE_API_KEY": ADA})
    os.close(far)
    try:
        shown = b""
        while b"#key=" not in shown or not shown.endswith(b"\n"):
            shown += os.read(near, 4096)
        secret = shown.decode().split("#key=")[1].split()[0]
        assert secret.startswith("ek_") and ADA not in shown.decode()
        assert httpx.get(f"http://{at}/v1/realtime/transports", headers=bearer(secret)).status_code == 200
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        os.close(near)
