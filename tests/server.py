"""Servers of a test's own: programs at free ports, with their logs."""

import os
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx

# Models that cost next to nothing, for what is not about them.
BARE = ["--voice", "tone", "--vad", "light:0", "--no-end-of-turn", "--asr", "whisper-tiny.en"]

# The machine may be busy with other tests; which sessions are refused then is a test of its own.
PATIENT = {"DUOLOGUE_MAX_CPU_PERCENT": "0", "DUOLOGUE_MAX_MACHINE_PERCENT": "0", "DUOLOGUE_MAX_LAG_MS": "0"}


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_until(look, timeout, what):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            if look():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout} s: {what}")


class Program:
    """A program that runs beside the test, with its log."""

    def __init__(self, log, command, **env):
        self.log = Path(log)
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=out)

    def told(self, text):
        return text in self.log.read_text(errors="replace")

    def wait_until_told(self, text, timeout=120):
        def look():
            assert self.process.poll() is None or self.told(text), self.log.read_text()[-3000:]
            return self.told(text)

        wait_until(look, timeout, f"{text!r} in {self.log}")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Served(Program):
    """`duologue serve`."""

    def __init__(self, folder, *arguments, scheme="http", env=None):
        self.url = f"{scheme}://127.0.0.1:{free_port()}"
        # A slow machine may lend its own models: DUOLOGUE_SERVE_ARGS="--llm-url ... --llm-model ...".
        lent = shlex.split(os.environ.get("DUOLOGUE_SERVE_ARGS", ""))
        listen = self.url.removeprefix(f"{scheme}://")
        command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", listen, *arguments, *lent]
        log = Path(folder) / f"duologue-{time.monotonic_ns()}.log"
        super().__init__(log, command, **(PATIENT | (env or {})))


class Redis(Program):
    """`redis-server`, which keeps nothing on the disk."""

    def __init__(self, folder):
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}"
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
        super().__init__(Path(folder) / f"redis-{port}.log", ["redis-server", *options])
        self.wait_until_told("Ready to accept connections", 30)
