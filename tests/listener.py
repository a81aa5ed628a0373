"""What people in calls and in rooms have in common: what they hear, the events they are told, what they say."""

import asyncio
import json
import time

import numpy as np

CALL_RATE = 48_000
BLOCK = CALL_RATE // 50


def blocks_of(samples):
    """Speech at 24 kHz, in 20 ms of 48 kHz."""
    samples = np.repeat(samples, 2)
    pieces = (samples[at : at + BLOCK] for at in range(0, len(samples), BLOCK))
    return [np.pad(piece, (0, BLOCK - len(piece))) for piece in pieces]


class Listener:
    """What was heard, and the events, each with when it came."""

    def __init__(self):
        self.events = []
        self.heard = []
        self.arrived = asyncio.Condition()

    def sound(self, since=0.0):
        """All that was heard from a time on, 48 kHz s16."""
        blocks = [block for at, block in self.heard if at >= since]
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.int16)

    async def note(self, text):
        """Takes an event in."""
        async with self.arrived:
            self.events.append((time.monotonic(), json.loads(text)))
            self.arrived.notify_all()

    async def until(self, kind, after=0, timeout=90):
        """The first event of a kind at or after a position; gives (position, event)."""

        def find():
            for position in range(after, len(self.events)):
                if self.events[position][1]["type"] == kind:
                    return position, self.events[position][1]
            return None

        async with self.arrived:
            try:
                await asyncio.wait_for(self.arrived.wait_for(lambda: find() is not None), timeout)
            except TimeoutError:
                seen = [event["type"] for _, event in self.events[after:] if "delta" not in event["type"]]
                raise AssertionError(f"no {kind} within {timeout} s; there was {seen}{self.more()}") from None
            return find()

    def more(self):
        """What else helps to understand why something did not come."""
        return ""

    def types(self):
        return [event["type"] for _, event in self.events]
