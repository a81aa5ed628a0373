"""`POST /v1/realtime/calls` with clients that others wrote: aiortc, the stock openai client, plain HTTP."""

import asyncio
import io
import time

import httpx
import numpy as np
import soundfile
from openai import AsyncOpenAI, NotFoundError
from aiortc import RTCPeerConnection

from caller import caller
from conftest import speech, word_error_rate
from listener import CALL_RATE
from test_realtime import LONG


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 240))


def transcribe(client, samples):
    file = io.BytesIO()
    soundfile.write(file, samples, CALL_RATE, format="WAV", subtype="PCM_16")
    return client.audio.transcriptions.create(model="whisper-1", file=("reply.wav", file.getvalue())).text


def loud(samples):
    return len(samples) > 0 and float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) > 100


async def offer(kind="audio"):
    """An offer of aiortc's, and nothing behind it."""
    peer = RTCPeerConnection()
    if kind == "audio":
        peer.addTransceiver("audio")
    peer.createDataChannel("oai-events")
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    await peer.close()
    return sdp


def test_a_spoken_question_is_answered_aloud_in_a_call(url, client):
    async def talk():
        async with caller(url, instructions="Answer in one short sentence.") as one:
            _, created = await one.until("session.created")
            assert created["session"]["instructions"] == "Answer in one short sentence."
            one.microphone.say(speech("austen-0930.flac"))
            _, heard = await one.until("conversation.item.input_audio_transcription.completed")
            truth = "he might even have been made amiable himself"
            assert word_error_rate(truth, heard["transcript"]) <= 0.3, heard["transcript"]
            await one.until("output_audio_buffer.started")
            started = next(at for at, event in one.events if event["type"] == "output_audio_buffer.started")
            position, done = await one.until("response.done")
            assert done["response"]["status"] == "completed", done["response"]["status_details"]
            await one.until("output_audio_buffer.stopped", after=position)
            await asyncio.sleep(0.5)
            assert "response.output_audio.delta" not in one.types(), "sound came in events too"
            assert "error" not in one.types()
            _, text = await one.until("response.output_audio_transcript.done")
            return one.sound(since=started - 0.1), text["transcript"]

    sound, text = run(talk())
    heard = transcribe(client, sound)
    assert word_error_rate(text, heard) <= 0.25, (text, heard)


def test_speech_over_a_reply_stops_what_is_heard_in_the_call(url):
    async def talk():
        async with caller(url) as one:
            await one.until("session.created")
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": LONG}]}
            one.send({"type": "conversation.item.create", "item": item})
            one.send({"type": "response.create"})
            position, _ = await one.until("output_audio_buffer.started")
            await asyncio.sleep(2.5)
            assert loud(one.sound(since=time.monotonic() - 1.0)), "the reply is not heard"
            one.microphone.say(speech("jfk.flac"))
            position, _ = await one.until("duologue.playout.pause", after=position)
            position, _ = await one.until("output_audio_buffer.cleared", after=position)
            position, done = await one.until("response.done", after=position)
            assert done["response"]["status"] == "cancelled"
            assert done["response"]["status_details"]["reason"] == "turn_detected"
            duologue = done["response"]["duologue"]
            assert duologue["heard"] and duologue["unheard"], duologue
            # A pause in the speech may have let the reply go on once more.
            held = [at for at, event in one.events[:position] if event["type"] == "duologue.playout.pause"][-1]
            # What the network and the receiver's buffer still held is over soon after, and then it is silent.
            after = [(at, block) for at, block in one.heard if at > held + 0.3 and at <= one.events[position][0]]
            assert not any(loud(block) for _, block in after)
            # The interruption is a turn of its own.
            await one.until("response.created", after=position)

    run(talk())


def test_a_call_is_hung_up_by_either_side_and_is_then_unknown(url):
    async def talk():
        client = AsyncOpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0)
        async with caller(url) as one:
            await one.until("session.created")
            await client.realtime.calls.hangup(one.call_id)
            _, ended = await one.until("duologue.ended", timeout=10)
            assert ended["reason"] == "client_closed"
            await unknown(client, one.call_id)
        async with caller(url) as one:
            await one.until("session.created")
        await unknown(client, one.call_id)
        await client.close()

    async def unknown(client, call_id):
        for _ in range(50):
            try:
                await client.realtime.calls.hangup(call_id)
            except NotFoundError as error:
                assert error.code == "call_not_found"
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the call is still there")

    run(talk())


def test_several_calls_at_once_share_the_port_and_hear_their_own(url):
    async def talk():
        async with caller(url) as one, caller(url) as other:
            for each in (one, other):
                await each.until("session.created")
            text = "Say hello in one short sentence."
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
            one.send({"type": "conversation.item.create", "item": item})
            one.send({"type": "response.create"})
            _, _ = await one.until("output_audio_buffer.stopped")
            assert loud(one.sound())
            assert not loud(other.sound())
            assert "response.created" not in other.types()
            ports = {each.peer.sctp.transport.transport.iceGatherer.getLocalParameters().usernameFragment for each in (one, other)}
            assert len(ports) == 2

    run(talk())


def test_an_ice_restart_leaves_the_call_as_it_was(url):
    async def talk():
        async with caller(url) as one:
            await one.until("session.created")
            sdp = one.peer.localDescription.sdp
            lines = ["a=ice-ufrag:abcd" if line.startswith("a=ice-ufrag:") else line for line in sdp.splitlines()]
            lines = [f"a=ice-pwd:{'x' * 24}" if line.startswith("a=ice-pwd:") else line for line in lines]
            async with httpx.AsyncClient() as http:
                answer = await http.post(
                    f"{url}/v1/realtime/calls/{one.call_id}",
                    content="\r\n".join(lines) + "\r\n",
                    headers={"content-type": "application/sdp"},
                )
            assert answer.status_code == 200, answer.text
            fragments = [
                {line for line in sdp.splitlines() if line.startswith("a=ice-ufrag:")}
                for sdp in (one.peer.remoteDescription.sdp, answer.text)
            ]
            assert fragments[0] and fragments[1] and not fragments[0] & fragments[1], "the same credentials"

    run(talk())


def test_offers_that_are_none_are_told_what_is_wrong_with_them(url):
    with httpx.Client(base_url=url, timeout=30) as http:
        cases = [
            (b"hello", "application/sdp", 400, "not SDP"),
            (b"", "application/sdp", 400, "empty"),
            (b"\xff\xfe", "application/sdp", 400, "no text"),
            (b"{}", "application/json", 415, "application/sdp or multipart/form-data"),
            (b"v=0\r\n" * 400_000, "application/sdp", 413, ""),
            (asyncio.run(offer("data")).encode(), "application/sdp", 400, "no audio line"),
        ]
        for body, kind, status, message in cases:
            answer = http.post("/v1/realtime/calls", content=body, headers={"content-type": kind})
            assert answer.status_code == status, answer.text
            error = answer.json()["error"]
            assert error["type"] == "invalid_request_error" and message in error["message"], error
        good = asyncio.run(offer())
        for form, message in [
            ({"session": (None, "{}")}, "no field sdp"),
            ({"sdp": (None, good), "session": (None, "{")}, "session is not JSON"),
            ({"sdp": (None, good), "session": (None, '{"type": "transcription"}')}, "transcription"),
        ]:
            answer = http.post("/v1/realtime/calls", files=form)
            assert answer.status_code == 400 and message in answer.json()["error"]["message"], answer.text
        for call in [
            lambda: http.delete("/v1/realtime/calls/rtc_nobody"),
            lambda: http.post("/v1/realtime/calls/rtc_nobody/hangup"),
            lambda: http.post("/v1/realtime/calls/rtc_nobody", content=good, headers={"content-type": "application/sdp"}),
        ]:
            answer = call()
            assert answer.status_code == 404 and answer.json()["error"]["code"] == "call_not_found", answer.text


def test_a_full_server_refuses_a_call_and_says_when_to_try_again(url):
    good = asyncio.run(offer())
    calls = []
    with httpx.Client(base_url=url, timeout=30) as http:
        try:
            for _ in range(65):
                answer = http.post("/v1/realtime/calls", content=good, headers={"content-type": "application/sdp"})
                if answer.status_code != 201:
                    break
                calls.append(answer.headers["location"])
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] == "server_full"
            assert int(answer.headers["retry-after"]) > 0
        finally:
            for call in calls:
                assert http.delete(call).status_code == 200
        # Their places are free again.
        for _ in range(50):
            answer = http.post("/v1/realtime/calls", content=good, headers={"content-type": "application/sdp"})
            if answer.status_code == 201:
                break
            time.sleep(0.1)
        assert answer.status_code == 201, answer.text
        assert http.delete(answer.headers["location"]).status_code == 200


def test_clients_are_told_of_the_servers_for_stun_and_turn(url):
    answer = httpx.get(f"{url}/v1/realtime/ice_servers")
    assert answer.status_code == 200
    assert isinstance(answer.json()["ice_servers"], list)
