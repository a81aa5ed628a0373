"""A client whose loudspeaker is heard by its microphone: what goes wrong, and that echo cancellation mends it."""

import asyncio
import base64
import time
from contextlib import asynccontextmanager

import numpy as np
from openai import AsyncOpenAI

from conftest import RATE, speech, words
from realtime import BLOCK, Person

TEXT = (
    "Repeat this text word for word: The old ship left the harbour in the early morning. The wind was cold and the "
    "waves were high. The captain stood at the wheel and looked at the grey sky. The sailors sang a song about home."
)
# The way from the loudspeaker to the microphone: straight, and by three walls.
ROOM = [(0, 0.35), (190, 0.15), (410, -0.1), (900, 0.05)]


class LoudRoom(Person):
    """Plays what it is sent, after `buffer` seconds, and sends what it says together with the echo of that."""

    def __init__(self, connection, buffer):
        super().__init__(connection)
        self.buffer = buffer
        self.playing = np.zeros(0, dtype=np.float32)
        self.starts_at = None
        self.heard = np.zeros(RATE, dtype=np.float32)
        self.taken = 0

    def take(self):
        """Queues the audio that has come since the last call."""
        for at, event in self.events[self.taken :]:
            if event.type == "response.output_audio.delta":
                if not len(self.playing) and self.starts_at is None:
                    self.starts_at = at + self.buffer
                piece = np.frombuffer(base64.b64decode(event.delta), dtype="<i2").astype(np.float32) / 32768
                self.playing = np.concatenate([self.playing, piece])
            elif event.type == "input_audio_buffer.speech_started":
                # What stock clients do: the user speaks, so the reply is dropped.
                self.playing = np.zeros(0, dtype=np.float32)
                self.starts_at = None
        self.taken = len(self.events)

    def block_played(self):
        self.take()
        block = np.zeros(BLOCK, dtype=np.float32)
        if self.starts_at is not None and time.monotonic() >= self.starts_at:
            count = min(BLOCK, len(self.playing))
            block[:count] = self.playing[:count]
            self.playing = self.playing[count:]
            if not len(self.playing):
                self.starts_at = None
        return block

    async def hold_microphone(self):
        # No room is quite silent.
        hiss = np.random.default_rng(1)
        start = time.monotonic()
        blocks = 0
        while True:
            self.heard = np.concatenate([self.heard[BLOCK:], self.block_played()])
            block = hiss.normal(0, 2e-4, BLOCK).astype(np.float32)
            for delay, gain in ROOM:
                at = len(self.heard) - BLOCK - delay
                block += gain * self.heard[at : at + BLOCK]
            if self.to_say:
                block += self.to_say.pop(0).astype(np.float32) / 32768
            block = (np.clip(block, -1, 1) * 32767).astype(np.int16)
            await self.connection.input_audio_buffer.append(audio=base64.b64encode(block.tobytes()).decode())
            blocks += 1
            await asyncio.sleep(max(0.0, start + blocks * BLOCK / RATE - time.monotonic()))


@asynccontextmanager
async def loud_room(url, cancellation, buffer=0.1):
    client = AsyncOpenAI(
        api_key="none", base_url=f"{url}/v1", websocket_base_url=url.replace("http", "ws", 1) + "/v1"
    )
    async with client.realtime.connect(model="gpt-realtime") as connection:
        one = LoudRoom(connection, buffer)
        tasks = [asyncio.create_task(one.listen())]
        await one.until("session.created", timeout=30)
        ours = {"events": True, "echo_cancellation": cancellation}
        await connection.session.update(session={"type": "realtime", "duologue": ours})
        _, updated = await one.until("session.updated", timeout=10)
        assert updated.session.model_dump()["duologue"].items() >= ours.items()
        tasks.append(asyncio.create_task(one.hold_microphone()))
        # The ear learns how quiet the room is.
        await asyncio.sleep(2.5)
        try:
            yield one
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def ask(one):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": TEXT}]}
    mark = len(one.events)
    await one.connection.conversation.item.create(item=item)
    await one.connection.response.create()
    await one.until("response.output_audio.delta", after=mark)


def barge_ins(one, after=0):
    """What the session took for speech over its reply."""
    kinds = ("duologue.interruption", "duologue.heard_itself", "duologue.playout.pause")
    return [event.type for _, event in one.events[after:] if event.type in kinds]


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 180))


def test_without_cancellation_a_session_in_a_loud_room_hears_itself(url):
    async def talk():
        async with loud_room(url, cancellation=False) as one:
            await ask(one)
            await one.until("response.done")
            assert barge_ins(one), "the echo was not heard: this test shows nothing"
            told = [event for _, event in one.events if event.type == "duologue.heard_itself"]
            for event in told:
                assert "headphones" in event.model_dump()["message"]

    run(talk())


def test_with_cancellation_the_reply_is_said_to_its_end_and_can_be_interrupted(url):
    async def talk():
        async with loud_room(url, cancellation=True) as one:
            await ask(one)
            _, done = await one.until("response.done")
            assert done.response.status == "completed", done.response.status_details
            assert not barge_ins(one)
            await asyncio.sleep(1.5)

            # A real interruption, over the echo.
            mark = len(one.events)
            await ask(one)
            await asyncio.sleep(2.0)
            one.say(speech("jfk.flac"))
            _, cut = await one.until("response.done", after=mark)
            assert cut.response.status == "cancelled", cut.response.status
            assert cut.response.status_details.reason == "turn_detected"
            # The first words are said while the echo is loudest: the recognizer may mishear them, or miss them. The
            # rest of the sentence is said over silence.
            await one.until(
                "conversation.item.input_audio_transcription.completed",
                after=mark,
                timeout=30,
                where=lambda heard: {"americans", "country"} & set(words(heard.transcript)),
            )
            _, known = await one.until("duologue.hearing", after=mark, timeout=20)
            assert known.model_dump()["echo_cancellation"]["delay_ms"] is not None

    run(talk())
