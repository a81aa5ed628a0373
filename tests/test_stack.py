"""A whole stack, from without: a server behind a proxy, its workers, LiveKit, Prometheus.

`cargo xtask smoke` brings up deploy/compose.yaml and runs this. It runs against a stack of yours too:

    DUOLOGUE_STACK=https://talk.example.org DUOLOGUE_API_KEY=... python -m pytest tests/test_stack.py
"""

import asyncio
import os
import time

import httpx
import numpy as np
import pytest

from conftest import RATE, speech, words
from realtime import person
from test_realtime import LONG, run, type_and_ask

STACK = os.environ.get("DUOLOGUE_STACK", "").rstrip("/")
PROMETHEUS = os.environ.get("DUOLOGUE_STACK_PROMETHEUS", "").rstrip("/")
KEY = os.environ.get("DUOLOGUE_API_KEY", "none")

pytestmark = pytest.mark.skipif(not STACK, reason="DUOLOGUE_STACK names a stack (`cargo xtask smoke` sets it)")


def get(path, **options):
    return httpx.get(f"{STACK}{path}", headers={"authorization": f"Bearer {KEY}"}, timeout=20, **options)


def loud(samples):
    return len(samples) > RATE // 4 and float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) > 100


def test_the_page_comes_and_the_server_is_ready():
    assert get("/readyz").status_code == 200
    page = get("/")
    assert page.status_code == 200 and "Duologue" in page.text


def test_a_question_is_answered_aloud_and_the_answer_can_be_interrupted():
    async def talk():
        async with person(STACK, api_key=KEY, instructions="Answer in one short sentence.") as one:
            one.say(speech("austen-0930.flac"))
            _, heard = await one.until("conversation.item.input_audio_transcription.completed")
            assert "amiable" in heard.transcript.lower(), heard.transcript
            answered, done = await one.until("response.done")
            assert done.response.status == "completed", done.response.status_details
            assert loud(one.sound(done.response.id)) and words(one.transcript(done.response.id))
            # Then a long one, which is spoken over once it sounds.
            await type_and_ask(one, LONG)
            await one.until("response.output_audio.delta", after=answered)
            await asyncio.sleep(2.0)
            mark, began = len(one.events), time.monotonic()
            one.say(speech("jfk.flac"))
            cut, done = await one.until("response.done", after=mark)
            assert done.response.status == "cancelled"
            assert done.response.status_details.reason == "turn_detected"
            assert one.to_say, "the reply ended only after the whole interruption was said"
            # From there on it is silent: nothing more comes of that reply, while the interruption goes on.
            await asyncio.sleep(2.0)
            sounds = [
                at
                for at, event in one.events
                if event.type == "response.output_audio.delta" and event.response_id == done.response.id
            ]
            assert sounds[-1] <= one.events[cut][0]
            print(f"silent {1_000 * (sounds[-1] - began):.0f} ms after the first sound of the interruption was sent")
            assert not one.errors()

    run(talk())


def test_a_guest_of_a_livekit_room_is_answered():
    from listener import CALL_RATE
    from room import guest, wait_for

    answer = httpx.post(f"{STACK}/v1/livekit/token", headers={"authorization": f"Bearer {KEY}"}, json={}, timeout=20)
    if answer.status_code == 404:
        pytest.skip("the stack has no LiveKit")
    assert answer.status_code == 201, answer.text
    details = answer.json()

    async def talk():
        async with guest(details["server_url"], details["participant_token"]) as one:
            await wait_for(lambda: "listening" in one.states, 30, lambda: f"the agent is there, {one.states}")
            asked = time.monotonic()
            one.say(speech("austen-0930.flac"))
            await wait_for(
                lambda: loud(one.sound(asked)[-CALL_RATE:]), 60, lambda: f"it speaks, {one.states} {one.texts}"
            )

    run(talk())


def test_nobody_outside_reads_the_metrics_and_prometheus_does():
    assert get("/metrics").status_code in (401, 403, 404)
    if not PROMETHEUS:
        pytest.skip("DUOLOGUE_STACK_PROMETHEUS names a Prometheus")

    def value(query):
        answer = httpx.get(f"{PROMETHEUS}/api/v1/query", params={"query": query}, timeout=20)
        assert answer.status_code == 200, answer.text
        return sum(float(series["value"][1]) for series in answer.json()["data"]["result"])

    # Once the orchestrator and the workers have been scraped after what was said above.
    wanted = ["sum(duologue_turns_total) >= 1", "sum(duologue_worker_utterances_total) >= 1"]
    end = time.monotonic() + 60
    while missing := [query for query in wanted if not value(query)]:
        assert time.monotonic() < end, f"Prometheus knows of none: {missing}"
        time.sleep(1)
    down = httpx.get(f"{PROMETHEUS}/api/v1/query", params={"query": 'up{job=~"duologue.*"} == 0'}, timeout=20)
    assert not down.json()["data"]["result"], down.text
