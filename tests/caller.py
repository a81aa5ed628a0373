"""A person in a WebRTC call: aiortc for the connection, the stock openai client for the signalling."""

import asyncio
import fractions
import json
import time
from contextlib import asynccontextmanager

import av
import numpy as np
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from openai import AsyncOpenAI

from listener import BLOCK, CALL_RATE, Listener, blocks_of


class Microphone(MediaStreamTrack):
    """Always open; hears silence until `say` is called."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.blocks = []
        self.sent = 0
        self.start = None

    def say(self, samples):
        """Queues speech at 24 kHz; it is sent in real time."""
        self.blocks.extend(blocks_of(samples))

    async def recv(self):
        self.start = self.start or time.monotonic()
        await asyncio.sleep(max(0.0, self.start + self.sent * 0.02 - time.monotonic()))
        block = self.blocks.pop(0) if self.blocks else np.zeros(BLOCK, dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(block.astype(np.int16).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = CALL_RATE
        frame.pts = self.sent * BLOCK
        frame.time_base = fractions.Fraction(1, CALL_RATE)
        self.sent += 1
        return frame


class Caller(Listener):
    """One call."""

    def __init__(self, peer, microphone, channel):
        super().__init__()
        self.peer = peer
        self.microphone = microphone
        self.channel = channel
        self.call_id = None
        self.closed = asyncio.Event()

    def send(self, event):
        self.channel.send(json.dumps(event))

    async def listen(self, track):
        while True:
            frame = await track.recv()
            samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(axis=1)
            self.heard.append((time.monotonic(), samples.astype(np.int16)))


@asynccontextmanager
async def caller(url, key="none", **session):
    """A call whose data channel is open."""
    client = AsyncOpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
    peer = RTCPeerConnection()
    microphone = Microphone()
    peer.addTrack(microphone)
    channel = peer.createDataChannel("oai-events")
    one = Caller(peer, microphone, channel)
    tasks = []
    opened = asyncio.Event()
    channel.on("open", opened.set)
    channel.on("message", lambda text: tasks.append(asyncio.ensure_future(one.note(text))))
    channel.on("close", one.closed.set)
    peer.on("track", lambda track: tasks.append(asyncio.ensure_future(one.listen(track))))
    try:
        await peer.setLocalDescription(await peer.createOffer())
        answer = await client.realtime.calls.create(
            sdp=peer.localDescription.sdp, session={"type": "realtime", "duologue": {"events": True}, **session}
        )
        assert answer.response.status_code == 201
        one.call_id = answer.response.headers["Location"].rsplit("/", 1)[1]
        await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
        await asyncio.wait_for(opened.wait(), 20)
        if channel.readyState == "open":
            opened.set()
        yield one
    finally:
        await peer.close()
        for task in tasks:
            task.cancel()
        await client.close()
