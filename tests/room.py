"""A person in a LiveKit room, with the stock `livekit` client."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import numpy as np
from livekit import rtc

from listener import BLOCK, CALL_RATE, Listener, blocks_of


class Guest(Listener):
    """One participant: what was heard of the agent, the session's events, LiveKit's transcriptions and states."""

    def __init__(self, room):
        super().__init__()
        self.room = room
        self.source = rtc.AudioSource(CALL_RATE, 1, queue_size_ms=100)
        self.blocks = []
        self.texts = []
        self.states = []
        self.reconnects = 0
        self.tasks = set()
        room.on("track_subscribed", self.subscribed)
        room.on("data_received", lambda packet: self.do(self.received(packet.topic, packet.data.decode())))
        room.on("participant_attributes_changed", self.attributes_changed)
        room.on("participant_connected", lambda one: self.attributes_changed(one.attributes, one))
        room.on("reconnecting", self.reconnecting)
        room.register_text_stream_handler("oai-events", lambda reader, _: self.do(self.long_event(reader)))
        room.register_text_stream_handler("lk.transcription", lambda reader, who: self.do(self.text(reader, who)))

    def do(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def reconnecting(self):
        self.reconnects += 1

    def subscribed(self, track, _publication, _participant):
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self.do(self.listen(track))

    async def listen(self, track):
        async for event in rtc.AudioStream(track, sample_rate=CALL_RATE, num_channels=1):
            self.heard.append((time.monotonic(), np.frombuffer(event.frame.data, dtype=np.int16).copy()))

    def attributes_changed(self, changed, participant):
        state = changed.get("lk.agent.state")
        if state and participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT:
            self.states.append(state)

    async def received(self, topic, text):
        if topic == "oai-events":
            await self.note(text)

    async def long_event(self, reader):
        await self.received("oai-events", await reader.read_all())

    async def text(self, reader, who):
        attributes = dict(reader.info.attributes)
        words = await reader.read_all()
        # The trailer's attributes are added when the stream ends.
        attributes |= dict(reader.info.attributes)
        self.texts.append((who, attributes, words))

    async def send(self, event):
        await self.room.local_participant.publish_data(json.dumps(event), reliable=True, topic="oai-events")

    def say(self, samples):
        """Queues speech at 24 kHz; it is sent in real time."""
        self.blocks.extend(blocks_of(samples))

    async def hold_microphone(self):
        start, sent = time.monotonic(), 0
        silence = np.zeros(BLOCK, dtype=np.int16)
        while True:
            block = self.blocks.pop(0) if self.blocks else silence
            await self.source.capture_frame(rtc.AudioFrame(block.tobytes(), CALL_RATE, 1, BLOCK))
            sent += 1
            await asyncio.sleep(max(0.0, start + sent * 0.02 - time.monotonic()))

    def more(self):
        return f", states {self.states}"


@asynccontextmanager
async def guest(url, token, microphone=True):
    """A participant who is in the room, its microphone open."""
    room = rtc.Room()
    one = Guest(room)
    await room.connect(url, token)
    if microphone:
        track = rtc.LocalAudioTrack.create_audio_track("microphone", one.source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)
        one.do(one.hold_microphone())
    try:
        yield one
    finally:
        for task in list(one.tasks):
            task.cancel()
        await asyncio.gather(*one.tasks, return_exceptions=True)
        await room.disconnect()


async def wait_for(look, timeout, what):
    end = time.monotonic() + timeout
    while not look():
        assert time.monotonic() < end, f"not within {timeout} s: {what()}"
        await asyncio.sleep(0.05)
