"""The real LiveKit server, and a Duologue that talks at it, both on loopback."""

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx

from relay import Relay
from server import Served, free_port, wait_until

KEY, SECRET = "devkey", "a-secret-of-more-than-32-characters"


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


class Duologue(Served):
    """`duologue serve --livekit`, with its log."""

    def __init__(self, folder, server, *arguments, key=KEY, secret=SECRET):
        keys = {"LIVEKIT_API_KEY": key, "LIVEKIT_API_SECRET": secret}
        super().__init__(folder, "--livekit", server, *arguments, env=keys)


class Proxy(Relay):
    """Connections to a LiveKit server; media goes past it. Keeps the claims of the token that each came with."""

    def __init__(self, port):
        self.tokens = []
        super().__init__(port)
        self.url = f"ws://127.0.0.1:{self.port}"

    def asked(self, data):
        for line in data.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"authorization":
                claims = value.split(b".")[1]
                self.tokens.append(json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4))))
