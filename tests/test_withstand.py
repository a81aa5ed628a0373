"""What goes wrong around a server: each is done to a real one, and it is looked at what comes of it.

docs/operations.md tells the outcomes.
"""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import websockets

from conftest import speech
from realtime import person
from relay import Relay
from server import BARE, PATIENT, Redis, Served, free_port, wait_until
from stand_ins import Endpoint
from test_hostile_clients import connect, frame, raw_websocket
from test_realtime import run, type_and_ask

MODELS = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "duologue" / "voicepacks"


@pytest.fixture(scope="module")
def endpoint():
    endpoint = Endpoint()
    yield endpoint
    endpoint.stop()


@pytest.fixture(autouse=True)
def in_a_good_mood(endpoint):
    endpoint.mood = "well"


def ready(server):
    wait_until(lambda: httpx.get(f"{server.url}/readyz", timeout=5).status_code == 200, 120, server.log)
    return server


@pytest.fixture(scope="module")
def light(endpoint, tmp_path_factory):
    """A server that costs next to nothing, whose models are elsewhere or none."""
    server = Served(
        tmp_path_factory.mktemp("light"), *BARE[:-2], *endpoint.options(), *endpoint.ears(), "--max-sessions", "8"
    )
    yield ready(server)
    server.stop()


@contextlib.contextmanager
def served(folder, *options, env=None):
    server = Served(folder, *BARE[:-2], *options, env=env)
    try:
        yield ready(server)
    finally:
        server.stop()


async def answered(url, timeout=60):
    async with person(url, microphone=False) as one:
        await type_and_ask(one, "Say hello.")
        _, done = await one.until("response.done", timeout=timeout)
        assert done.response.status == "completed", done.response.status_details


def memory(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


# Clients


def test_a_client_that_never_reads_what_it_makes_long_costs_some_megabytes(light):
    before = memory(light)
    client = raw_websocket(light.url)
    tools = [{"type": "function", "name": f"f{n}", "description": "x" * 5_000} for n in range(100)]
    # The answer to it has 500 kB.
    update = large_frame(json.dumps({"type": "session.update", "session": {"tools": tools}}))
    give_up = time.monotonic() + 60
    most = before
    with pytest.raises((ConnectionError, TimeoutError)):
        while time.monotonic() < give_up:
            client.sendall(update)
            most = max(most, memory(light))
    client.close()
    assert time.monotonic() < give_up, "the server went on taking what nobody reads the answers to"
    assert most - before < 150, f"{most - before:.0f} MB"
    run(answered(light.url))


def large_frame(text):
    data, mask = text.encode(), bytes(4)
    return b"\x81" + bytes([0x80 | 127]) + len(data).to_bytes(8) + mask + data


def test_long_json_that_is_no_sound_is_refused_before_it_is_read(light):
    async def talk():
        before = memory(light)
        async with connect(light.url) as client:
            await client.recv()
            for text in ["[" * 14_000_000, '{"type": "session.update", "session": [' + "0," * 6_000_000 + "0]}"]:
                await client.send(text)
                error = json.loads(await asyncio.wait_for(client.recv(), 20))
                assert "only input_audio_buffer.append" in error["error"]["message"]
        assert memory(light) - before < 100

    run(talk())


def test_a_mistake_of_megabytes_is_told_in_a_few_words(light):
    async def talk():
        async with connect(light.url) as client:
            await client.recv()
            await client.send(json.dumps({"type": "\U0001f600" * 80_000}))
            assert len(await asyncio.wait_for(client.recv(), 10)) < 4_000

    run(talk())


def test_a_flood_of_tiny_events_does_not_keep_others_waiting(light):
    async def talk():
        async with connect(light.url) as flooding:
            await flooding.recv()

            async def flood():
                while True:
                    await flooding.send('{"type":"x"}')

            async def read():
                async for _ in flooding:
                    pass

            tasks = [asyncio.create_task(flood()), asyncio.create_task(read())]
            try:
                for _ in range(3):
                    await answered(light.url, timeout=20)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    run(talk())


def test_a_client_that_vanishes_without_a_word_gives_its_slot_back(endpoint, tmp_path):
    with served(tmp_path, *endpoint.options(), *endpoint.ears(), "--max-sessions", "1", "--idle-timeout", "0") as server:
        relay = Relay(int(server.url.rsplit(":", 1)[1]))
        client = raw_websocket(f"http://127.0.0.1:{relay.port}")
        client.sendall(frame(json.dumps({"type": "session.update", "session": {"instructions": "x"}})))
        assert httpx.get(f"{server.url}/v1/realtime").status_code == 503
        # Neither end is told that nothing goes through any more.
        relay.silent = True
        wait_until(lambda: httpx.get(f"{server.url}/v1/realtime").status_code == 426, 90, "the slot is free")
        client.close()
        relay.stop()
        run(answered(server.url))


def test_a_client_that_is_silent_but_there_is_not_cut_off(light):
    async def talk():
        async with websockets.connect(
            light.url.replace("http", "ws", 1) + "/v1/realtime", ping_interval=None
        ) as client:
            await client.recv()
            # Only the server's pings, which the library answers by itself.
            await asyncio.sleep(45)
            await client.send('{"type": "x"}')
            assert json.loads(await asyncio.wait_for(client.recv(), 10))["type"] == "error"

    run(talk())


def test_connections_up_to_the_last_file_descriptor_do_not_hurt_who_is_there(endpoint, tmp_path):
    def few_files():
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

    log = tmp_path / "serve.log"
    port = free_port()
    command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", f"127.0.0.1:{port}", *BARE[:-2], *endpoint.options()]
    command += [*endpoint.ears(), "--no-webrtc", "--max-sessions", "4"]
    with open(log, "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | PATIENT, preexec_fn=few_files)
    url = f"http://127.0.0.1:{port}"

    async def talk():
        async with person(url, microphone=False) as one:
            flood = []
            for n in range(250):
                client = socket.socket()
                client.settimeout(0.2)
                with contextlib.suppress(OSError):
                    client.connect(("127.0.0.1", port))
                    # Some say nothing, some begin a request and never end it.
                    client.sendall(b"GET / HTTP/1.1\r\nX-Slow: " if n % 2 else b"")
                flood.append(client)
            await asyncio.sleep(2)
            # Who talks goes on, though each answer needs a connection to the model elsewhere.
            for n in range(3):
                await type_and_ask(one, "Say hello.")
                position, done = await one.until("response.done", after=0 if n == 0 else position + 1, timeout=30)
                assert done.response.status == "completed", done.response.status_details
            # They are held for half a minute at most, without anybody's help.
            await asyncio.to_thread(
                wait_until, lambda: httpx.get(f"{url}/healthz", timeout=5).status_code == 200, 90, "others are served"
            )
            for client in flood:
                client.close()

    try:
        wait_until(lambda: httpx.get(f"{url}/readyz", timeout=5).status_code == 200, 120, log)
        run(talk())
        run(answered(url))
        assert "panicked" not in log.read_text()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_who_asks_for_long_speech_and_does_not_take_it_keeps_no_voice(light):
    def voices():
        page = httpx.get(f"{light.url}/metrics").text
        lines = [line for line in page.splitlines() if line.startswith("duologue_worker_sessions ")]
        return float(lines[0].split()[1]) if lines else 0.0

    wait_until(lambda: voices() == 0, 60, "nobody else is spoken to")
    body = json.dumps({"model": "tts-1", "voice": "tone", "input": "word " * 6_000, "response_format": "pcm"}).encode()
    where = light.url.removeprefix("http://").split(":")
    clients = [socket.create_connection((where[0], int(where[1]))) for _ in range(3)]
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: {where[0]}:{where[1]}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
    wait_until(lambda: voices() == 3, 20, "they are read to")
    wait_until(lambda: voices() == 0, 90, "they are given up")
    for client in clients:
        client.close()


def test_a_session_that_would_be_too_much_is_refused_with_when_to_come_again(endpoint, tmp_path):
    # Every timer is later than a millisecond now and then, and so nobody but the first is let in.
    busy = {"DUOLOGUE_MAX_LAG_MS": "1"}
    with served(tmp_path, *endpoint.options(), *endpoint.ears(), env=busy) as server:

        async def talk():
            async with person(server.url, microphone=False) as one:
                await asyncio.sleep(4)
                refused = httpx.get(f"{server.url}/v1/realtime")
                assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
                error = refused.json()["error"]
                assert error["code"] == "server_full" and "ms late" in error["message"]
                assert "busy" in httpx.get(f"{server.url}/readyz").text
                await type_and_ask(one, "Say hello.")
                _, done = await one.until("response.done")
                assert done.response.status == "completed"

        run(talk())
        wait_until(lambda: httpx.get(f"{server.url}/v1/realtime").status_code == 426, 20, "the first is let in")
        refused = 'duologue_sessions_refused_total{reason="busy"}'
        assert refused in httpx.get(f"{server.url}/metrics").text


def cores():
    """How many cores this process may use, as the server counts them."""
    count = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


@pytest.mark.skipif(cores() < (os.cpu_count() or 1), reason="the whole machine cannot be kept busy from here")
def test_who_would_find_the_machine_full_of_other_programs_is_refused(endpoint, tmp_path):
    with served(tmp_path, *endpoint.options(), *endpoint.ears(), env={"DUOLOGUE_MAX_MACHINE_PERCENT": "90"}) as server:

        async def talk():
            async with person(server.url, microphone=False):
                others = [subprocess.Popen([sys.executable, "-c", "import time\nwhile time.process_time() < 60: pass"]) for _ in range(os.cpu_count())]
                try:

                    def refused():
                        told = httpx.get(f"{server.url}/v1/realtime")
                        return told.status_code == 503 and "other programs" in told.json()["error"]["message"]

                    await asyncio.to_thread(wait_until, refused, 40, "there is no room for a second")
                finally:
                    for other in others:
                        other.kill()
                        other.wait()

        run(talk())
        wait_until(lambda: httpx.get(f"{server.url}/v1/realtime").status_code == 426, 20, "the first is let in")


def test_people_are_listened_to_on_every_core(light):
    tasks = Path(f"/proc/{light.process.pid}/task").iterdir()
    names = []
    for task in tasks:
        # Threads come and go.
        with contextlib.suppress(OSError):
            names.append((task / "comm").read_text())
    assert sum(name.startswith("ear-") for name in names) == cores(), names


# Models elsewhere


@pytest.mark.parametrize("mood", ["closes", "fails", "web page", "garbage", "endless", "closes midway"])
def test_a_language_model_that_misbehaves_costs_a_reply_and_not_the_conversation(light, endpoint, mood):
    async def talk():
        async with person(light.url, microphone=False) as one:
            endpoint.mood = mood
            await type_and_ask(one, "What is the time?")
            position, done = await one.until("response.done", timeout=60)
            assert done.response.status in ("failed", "incomplete"), done.response
            assert done.response.status_details.error or done.response.status_details.reason
            endpoint.mood = "well"
            await type_and_ask(one, "And now?")
            _, done = await one.until("response.done", after=position + 1, timeout=60)
            assert done.response.status == "completed", done.response.status_details

    run(talk())


@pytest.mark.parametrize("mood", ["hangs", "hangs midway"])
def test_a_language_model_that_hangs_is_given_up(light, endpoint, mood):
    async def talk():
        async with person(light.url, microphone=False) as one:
            endpoint.mood = mood
            await type_and_ask(one, "What is the time?")
            position, done = await one.until("response.done", timeout=120)
            assert done.response.status in ("failed", "incomplete"), done.response
            endpoint.mood = "well"
            await type_and_ask(one, "And now?")
            _, done = await one.until("response.done", after=position + 1, timeout=60)
            assert done.response.status == "completed", done.response.status_details

    run(talk())


@pytest.mark.parametrize("mood", ["closes", "fails", "web page", "garbage", "endless", "hangs"])
def test_a_recognizer_that_misbehaves_costs_a_turn_and_not_the_conversation(light, endpoint, mood):
    async def talk():
        async with person(light.url) as one:
            endpoint.mood = mood
            one.say(speech("asterisk-invalid.flac"))
            position, failed = await one.until("conversation.item.input_audio_transcription.failed", timeout=60)
            assert failed.error.message
            endpoint.mood = "well"
            one.say(speech("asterisk-invalid.flac"))
            _, done = await one.until("response.done", after=position + 1, timeout=60)
            assert done.response.status == "completed", done.response.status_details

    run(talk())


# The machine


def test_a_slow_redis_keeps_nobody_waiting(endpoint, tmp_path):
    redis = Redis(tmp_path)
    relay = Relay(int(redis.url.rsplit(":", 1)[1]))
    relay.delay = 3.0
    try:
        journal = ["--journal", f"redis://127.0.0.1:{relay.port}"]
        with served(tmp_path, *endpoint.options(), *endpoint.ears(), *journal) as server:
            began = time.monotonic()
            run(answered(server.url))
            assert time.monotonic() - began < 10
    finally:
        relay.stop()
        redis.stop()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB, where one may be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here: it needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_a_recording_and_not_the_conversation(endpoint, tmp_path, small_disk):
    (small_disk / "ballast").write_bytes(bytes(7_900_000))
    options = [*endpoint.options(), *endpoint.ears(), "--record", str(small_disk / "recordings")]
    with served(tmp_path, *options) as server:

        async def talk():
            async with person(server.url) as one:
                await asyncio.sleep(12)
                await type_and_ask(one, "Say hello.")
                _, done = await one.until("response.done", timeout=60)
                assert done.response.status == "completed", done.response.status_details

        run(talk())
        wait_until(lambda: server.told("No space left on device"), 20, "it is told")
        assert not server.told("panicked")


def test_a_full_disk_during_a_fetch_is_told_and_leaves_nothing_half_done(tmp_path, small_disk):
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(12_000_000))
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(
        "models:\n  - name: large\n    description: x\n    kind: llm\n    family: gguf\n    license: MIT\n    files:\n"
        f"      - name: model.bin\n        size: 12000000\n        sources: [{{path: {source}}}]\n"
    )
    env = os.environ | {"XDG_DATA_HOME": str(small_disk)}
    pulled = subprocess.run(
        [os.environ["DUOLOGUE_BIN"], "models", "pull", "--catalogue", catalogue, "large"],
        env=env, capture_output=True, text=True, timeout=60,
    )
    assert pulled.returncode != 0
    assert "not enough room" in pulled.stdout + pulled.stderr, pulled.stdout + pulled.stderr
    assert not (small_disk / "duologue/voicepacks/large").exists()


@pytest.mark.parametrize(
    ("pack", "file", "options"),
    [
        ("silero-vad", "silero_vad.onnx", ["--vad", "silero"]),
        ("piper-en_US-joe-medium", "*.onnx", ["--voice", "piper-en_US-joe-medium"]),
        ("whisper-tiny.en", "model.bin", ["--asr", "whisper-tiny.en"]),
        ("smart-turn-v3.2", "*.onnx", ["--end-of-turn"]),
        ("qwen2.5-coder-0.5b-instruct", "*.gguf", ["--llm", "qwen2.5-coder-0.5b-instruct"]),
    ],
)
def test_a_model_file_cut_in_half_is_named_at_the_start(endpoint, tmp_path, pack, file, options):
    if not (MODELS / pack).is_dir():
        pytest.skip(f"{pack} is not here")
    packs = tmp_path / "duologue/voicepacks"
    packs.mkdir(parents=True)
    for other in MODELS.iterdir():
        if other.name != pack:
            (packs / other.name).symlink_to(other)
    shutil.copytree(MODELS / pack, packs / pack)
    [whole] = (packs / pack).glob(file)
    os.truncate(whole, whole.stat().st_size // 2)
    choice = {"--voice": "tone", "--vad": "light:0", "--no-end-of-turn": None}
    if options == ["--end-of-turn"]:
        del choice["--no-end-of-turn"]
    elif options[0] in choice:
        del choice[options[0]]
    command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", f"127.0.0.1:{free_port()}", "--no-pull"]
    command += [part for pair in choice.items() for part in pair if part]
    if options[0] != "--asr":
        command += endpoint.ears()
    if options[0] != "--llm":
        command += endpoint.options()
    if options != ["--end-of-turn"]:
        command += options
    env = os.environ | {"XDG_DATA_HOME": str(tmp_path)}
    started = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    told = started.stdout + started.stderr
    assert started.returncode not in (0, -signal.SIGSEGV, -signal.SIGABRT), told[-2000:]
    assert pack in told or whole.name in told, told[-2000:]
    assert "panicked" not in told, told[-2000:]


def test_a_clock_that_jumps_does_not_end_a_conversation(endpoint, tmp_path):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not here (Debian: faketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    env = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        # Only the clock on the wall jumps; what counts seconds does not.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    options = [*endpoint.options(), *endpoint.ears(), "--journal", "memory"]
    with served(tmp_path, *options, env=env) as server:

        async def talk():
            async with person(server.url) as one:
                position = -1
                for jump in ["+0", "+3d", "-400d", "+0"]:
                    clock.write_text(f"{jump}\n")
                    await asyncio.sleep(0.5)
                    one.say(speech("asterisk-invalid.flac"))
                    position, done = await one.until("response.done", after=position + 1, timeout=60)
                    assert done.response.status == "completed", done.response.status_details
                assert not one.errors()

        run(talk())
        run(answered(server.url))
