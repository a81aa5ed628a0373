"""The real LiveKit server, and a Duologue that talks at it, both on loopback."""

import base64
import hashlib
import hmac
import json
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx

KEY, SECRET = "devkey", "a-secret-of-more-than-32-characters"


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def token(identity="", room=None, key=KEY, secret=SECRET, **grants):
    """A token as LiveKit's servers take it, signed by hand."""
    video = {"roomJoin": True, "room": room, **grants} if room else grants
    now = int(time.time())
    claims = {"iss": key, "sub": identity, "nbf": now - 5, "exp": now + 600, "video": video}

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + "." + part(json.dumps(claims).encode())
    return head + "." + part(hmac.new(secret.encode(), head.encode(), hashlib.sha256).digest())


class LiveKitServer:
    """`livekit-server` at ports of its own, which it keeps when it is started again."""

    def __init__(self, folder):
        self.binary = os.environ["LIVEKIT_SERVER"]
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.folder = Path(folder)
        media = free_port(socket.SOCK_DGRAM)
        config = {
            "port": self.port,
            "bind_addresses": ["127.0.0.1"],
            "rtc": {
                "udp_port": media,
                "tcp_port": 0,
                "use_external_ip": False,
                "node_ip": "127.0.0.1",
                "enable_loopback_candidate": True,
                "interfaces": {"includes": ["lo"]},
            },
            "keys": {KEY: SECRET},
        }
        # YAML takes JSON.
        (self.folder / "livekit.yaml").write_text(json.dumps(config))
        self.process = None

    def start(self):
        with open(self.folder / "livekit.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "--config", str(self.folder / "livekit.yaml")], stdout=log, stderr=log
            )
        wait_until(lambda: httpx.get(f"http://127.0.0.1:{self.port}/").status_code == 200, 30, "LiveKit answers")

    def kill(self):
        """As a crash would."""
        self.process.kill()
        self.process.wait()

    def api(self, method, grants, **body):
        """A call of its room service."""
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/twirp/livekit.{method}",
            json=body,
            headers={"authorization": f"Bearer {token(**grants)}"},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()


class Duologue:
    """`duologue serve --livekit`, with its log."""

    def __init__(self, folder, server, *arguments, key=KEY, secret=SECRET):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = Path(folder) / f"duologue-{time.monotonic_ns()}.log"
        # A slow machine may lend its own models: DUOLOGUE_SERVE_ARGS="--llm-url ... --llm-model ...".
        lent = shlex.split(os.environ.get("DUOLOGUE_SERVE_ARGS", ""))
        command = [os.environ["DUOLOGUE_BIN"], "serve", "--listen", self.url.removeprefix("http://")]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*command, "--livekit", server, *arguments, *lent],
                env=os.environ | {"LIVEKIT_API_KEY": key, "LIVEKIT_API_SECRET": secret},
                stdout=log,
                stderr=log,
            )

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


class Proxy:
    """TCP connections to a server, all of which can be cut. Media goes past it."""

    def __init__(self, port):
        self.to = port
        self.pairs = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.to))
            self.pairs.append((near, far))
            for source, sink in [(near, far), (far, near)]:
                threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def carry(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for one in (source, sink):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        for pair in self.pairs:
            for one in pair:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self.pairs.clear()

    def close(self):
        self.listener.close()
        self.cut()
