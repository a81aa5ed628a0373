"""Clients that do what no client should: the server says so, forgets them, and serves the others."""

import asyncio
import base64
import json
import os
import socket
import struct
import time
from contextlib import AsyncExitStack
from urllib.parse import urlparse

import httpx
import pytest
import websockets

from realtime import person
from test_realtime import run, type_and_ask


def connect(url):
    return websockets.connect(url.replace("http", "ws", 1) + "/v1/realtime", max_size=None)


async def still_serves(url):
    async with person(url, microphone=False) as one:
        await type_and_ask(one, "Say hello.")
        _, done = await one.until("response.done")
        assert done.response.status == "completed"


def test_what_is_not_an_event_is_told_and_the_session_goes_on(url):
    async def talk():
        async with connect(url) as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
            for message, code in [
                ("{", "invalid_json"),
                ("[]", "invalid_type"),
                ("{}", "missing_required_parameter"),
                (b"\x00\x01", "invalid_json"),
                (json.dumps({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 300_000}]}}), "invalid_value"),
            ]:
                await socket.send(message)
                error = json.loads(await asyncio.wait_for(socket.recv(), 10))
                assert (error["type"], error["error"]["code"]) == ("error", code)

    run(talk())


def test_an_oversized_message_ends_that_session_alone(url):
    async def talk():
        async with person(url, microphone=False) as other:
            async with connect(url) as socket:
                await socket.recv()
                huge = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (16 * 1024 * 1024)})
                with pytest.raises(websockets.ConnectionClosed):
                    await socket.send(huge)
                    while True:
                        await asyncio.wait_for(socket.recv(), 20)
            await type_and_ask(other, "Say hello.")
            _, done = await other.until("response.done")
            assert done.response.status == "completed"

    run(talk())


def test_minutes_of_sound_at_once_does_not_hurt_the_others(url):
    async def talk():
        async with connect(url) as socket:
            await socket.recv()
            # A minute of silence a message; the server takes them as fast as it listens.
            audio = base64.b64encode(bytes(60 * 48_000)).decode()
            for _ in range(3):
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await still_serves(url)

    run(talk())


def raw_websocket(url):
    """A connection whose owner never reads more than the handshake."""
    where = urlparse(url)
    client = socket.create_connection((where.hostname, where.port), timeout=30)
    key = base64.b64encode(os.urandom(16)).decode()
    client.sendall(
        (
            f"GET /v1/realtime HTTP/1.1\r\nHost: {where.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
    )
    assert b" 101 " in client.recv(1024)
    return client


def frame(text):
    data, mask = text.encode(), os.urandom(4)
    head = b"\x81" + (bytes([0x80 | len(data)]) if len(data) < 126 else bytes([0x80 | 126]) + struct.pack(">H", len(data)))
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def test_a_client_that_never_reads_is_cut_off(url):
    client = raw_websocket(url)
    flood = frame(json.dumps({"type": "session.update", "session": {"instructions": "x"}})) * 200
    give_up = time.monotonic() + 90
    with pytest.raises((ConnectionError, TimeoutError)):
        while time.monotonic() < give_up:
            client.sendall(flood)
    assert time.monotonic() < give_up, "the server went on taking events whose answers nobody read"
    client.close()
    run(still_serves(url))


def test_one_client_too_many_is_told_when_to_come_again(url):
    async def talk():
        async with AsyncExitStack() as stack:
            refused = None
            for _ in range(64):
                try:
                    client = await stack.enter_async_context(connect(url))
                    await client.recv()
                except websockets.InvalidStatus as status:
                    refused = status.response
                    break
            assert refused is not None, "64 sessions were taken"
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert json.loads(refused.body)["error"]["code"] == "server_full"
            # Browsers hide the answer to an upgrade; a plain request tells the same.
            assert httpx.get(f"{url}/v1/realtime").status_code == 503
            assert httpx.get(f"{url}/readyz").status_code == 503
            assert httpx.get(f"{url}/healthz").status_code == 200
        for _ in range(100):
            answer = httpx.get(f"{url}/v1/realtime")
            if answer.status_code == 426:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"the slots were not given back: {answer.status_code}")

    run(talk())


def test_the_page_is_served_and_nothing_beside_it(url):
    page = httpx.get(url)
    assert page.status_code == 200 and "text/html" in page.headers["content-type"]
    assert httpx.get(f"{url}/app.js").headers["content-type"].startswith("text/javascript")
    for path in ["/tests/pcm.test.mjs", "/../Cargo.toml", "/%2e%2e/Cargo.toml", "/nothing"]:
        assert httpx.get(url + path).status_code == 404, path
