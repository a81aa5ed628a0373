"""A person at a stock `openai` realtime connection: speaks in real time, listens, remembers what came when."""

import asyncio
import base64
import time
from contextlib import asynccontextmanager

import numpy as np
from openai import AsyncOpenAI

from conftest import RATE

BLOCK = RATE // 50


class Person:
    """One connection. The microphone is always open; it hears silence until `say` is called."""

    def __init__(self, connection):
        self.connection = connection
        self.events = []
        self.to_say = []
        self.said_until = None
        self.arrived = asyncio.Condition()

    async def hold_microphone(self):
        silence = np.zeros(BLOCK, dtype=np.int16)
        start = time.monotonic()
        blocks = 0
        while True:
            block = self.to_say.pop(0) if self.to_say else silence
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(block.tobytes()).decode())
            if block is not silence:
                self.said_until = time.monotonic()
            blocks += 1
            await asyncio.sleep(max(0.0, start + blocks * BLOCK / RATE - time.monotonic()))

    async def listen(self):
        async for event in self.connection:
            async with self.arrived:
                self.events.append((time.monotonic(), event))
                self.arrived.notify_all()

    def say(self, samples):
        """Queues speech; the microphone sends it in real time."""
        blocks = [samples[at : at + BLOCK] for at in range(0, len(samples), BLOCK)]
        blocks[-1] = np.pad(blocks[-1], (0, BLOCK - len(blocks[-1])))
        self.to_say.extend(blocks)

    async def until(self, kind, after=0, timeout=90, where=lambda event: True):
        """The first event of a kind at or after a position; gives (position, event)."""

        def find():
            for position in range(after, len(self.events)):
                event = self.events[position][1]
                if event.type == kind and where(event):
                    return position, event
            return None

        async with self.arrived:
            try:
                await asyncio.wait_for(self.arrived.wait_for(lambda: find() is not None), timeout)
            except TimeoutError:
                seen = [event.type for _, event in self.events[after:] if "delta" not in event.type]
                raise AssertionError(f"no {kind} within {timeout} s; there was {seen}") from None
            return find()

    def types(self, start=0, end=None):
        """Types of the events in a stretch, runs of one type taken as one."""
        out = []
        for _, event in self.events[start:end]:
            if not out or out[-1] != event.type:
                out.append(event.type)
        return out

    def sound(self, response_id):
        """The sound of a reply, as 24 kHz s16."""
        pieces = [
            base64.b64decode(event.delta)
            for _, event in self.events
            if event.type == "response.output_audio.delta" and event.response_id == response_id
        ]
        return np.frombuffer(b"".join(pieces), dtype="<i2")

    def transcript(self, response_id):
        """The words of a reply as they were told."""
        return "".join(
            event.delta
            for _, event in self.events
            if event.type == "response.output_audio_transcript.delta" and event.response_id == response_id
        )

    def errors(self):
        return [event for _, event in self.events if event.type == "error"]


@asynccontextmanager
async def person(url, microphone=True, api_key="none", **session):
    """A connected person, with the session updated."""
    client = AsyncOpenAI(
        api_key=api_key, base_url=f"{url}/v1", websocket_base_url=url.replace("http", "ws", 1) + "/v1"
    )
    async with client.realtime.connect(model="gpt-realtime") as connection:
        one = Person(connection)
        tasks = [asyncio.create_task(one.listen())]
        await one.until("session.created", timeout=30)
        if session:
            await connection.session.update(session={"type": "realtime"} | session)
            await one.until("session.updated", timeout=10)
        if microphone:
            tasks.append(asyncio.create_task(one.hold_microphone()))
        try:
            yield one
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
