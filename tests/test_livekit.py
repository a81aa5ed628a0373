"""A session in a LiveKit room: the real LiveKit server, and the stock `livekit` client in it."""

import asyncio
import io
import os
import signal
import time

import httpx
import numpy as np
import pytest
import soundfile
from livekit import rtc
from openai import OpenAI

from conftest import speech, word_error_rate
from listener import CALL_RATE
from livekit_server import Duologue, LiveKitServer, Proxy, token
from room import guest, wait_for
from server import BARE, Redis
from test_realtime import LONG

pytestmark = pytest.mark.skipif(
    "LIVEKIT_SERVER" not in os.environ or "DUOLOGUE_BIN" not in os.environ,
    reason="LIVEKIT_SERVER and DUOLOGUE_BIN name the two programs (`cargo xtask test` sets them)",
)
QUICK = ["--asr", "whisper-tiny.en"]


@pytest.fixture(scope="module")
def livekit(tmp_path_factory):
    server = LiveKitServer(tmp_path_factory.mktemp("livekit"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def duologue(livekit, tmp_path_factory):
    one = Duologue(tmp_path_factory.mktemp("duologue"), livekit.url, *QUICK)
    try:
        one.wait_until_told("rooms of LiveKit are taken")
        yield one
    finally:
        one.stop()


@pytest.fixture
def lonely_livekit(tmp_path):
    """One at which no other Duologue takes every room."""
    server = LiveKitServer(tmp_path)
    server.start()
    yield server
    server.kill()


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 240))


def admitted(duologue, **wanted):
    answer = httpx.post(f"{duologue.url}/v1/livekit/token", json=wanted)
    assert answer.status_code == 201, answer.text
    return answer.json()


def transcribe(url, samples):
    client = OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0, timeout=120)
    file = io.BytesIO()
    soundfile.write(file, samples, CALL_RATE, format="WAV", subtype="PCM_16")
    return client.audio.transcriptions.create(model="whisper-1", file=("reply.wav", file.getvalue())).text


def loud(samples):
    return len(samples) > 0 and float(np.sqrt(np.mean(samples.astype(np.float64) ** 2))) > 100


def final_texts(one, who):
    return [words for by, attributes, words in one.texts if by == who and attributes["lk.transcription_final"] == "true"]


async def ask(one, text):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await one.send({"type": "conversation.item.create", "item": item})
    await one.send({"type": "response.create"})


def test_a_spoken_question_in_a_room_is_answered_aloud_and_shown(livekit, duologue):
    async def talk():
        place = admitted(duologue, participant_name="Ada")
        assert place["server_url"] == livekit.url
        async with guest(livekit.url, place["participant_token"]) as one:
            await one.until("session.created", timeout=30)
            one.say(speech("austen-0930.flac"))
            _, heard = await one.until("conversation.item.input_audio_transcription.completed")
            truth = "he might even have been made amiable himself"
            assert word_error_rate(truth, heard["transcript"]) <= 0.3, heard["transcript"]
            position, _ = await one.until("output_audio_buffer.started")
            started = one.events[position][0]
            position, done = await one.until("response.done")
            assert done["response"]["status"] == "completed", done["response"]["status_details"]
            await one.until("output_audio_buffer.stopped", after=position)
            await asyncio.sleep(0.5)
            assert "response.output_audio.delta" not in one.types(), "sound came in events too"
            _, said = await one.until("response.output_audio_transcript.done")
            (agent,) = one.room.remote_participants.values()
            assert agent.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
            (track,) = agent.track_publications.values()
            assert track.source == rtc.TrackSource.SOURCE_MICROPHONE
            # What LiveKit's own components show.
            states = [state for state, last in zip(one.states, [None, *one.states]) if state != last]
            assert states[-3:] == ["thinking", "speaking", "listening"], states
            assert final_texts(one, place["participant_identity"]) == [heard["transcript"]]
            spoken = [(attributes, words) for by, attributes, words in one.texts if by == agent.identity]
            assert spoken and spoken[-1][1] == said["transcript"], spoken
            assert all(attributes["lk.transcribed_track_id"] == track.sid for attributes, _ in spoken)
            return one.sound(since=started - 0.1), said["transcript"]

    sound, text = run(talk())
    heard = transcribe(duologue.url, sound)
    assert word_error_rate(text, heard) <= 0.25, (text, heard)


def test_speech_over_a_reply_stops_what_is_heard_in_the_room(livekit, duologue):
    async def talk():
        place = admitted(duologue)
        async with guest(livekit.url, place["participant_token"]) as one:
            await one.until("session.created", timeout=30)
            await one.send({"type": "session.update", "session": {"type": "realtime", "duologue": {"events": True}}})
            await ask(one, LONG)
            position, _ = await one.until("output_audio_buffer.started")
            await asyncio.sleep(2.5)
            assert loud(one.sound(since=time.monotonic() - 1.0)), "the reply is not heard"
            one.say(speech("jfk.flac"))
            position, _ = await one.until("duologue.playout.pause", after=position)
            held = one.events[position][0]
            position, _ = await one.until("output_audio_buffer.cleared", after=position)
            position, done = await one.until("response.done", after=position)
            assert done["response"]["status"] == "cancelled"
            duologue_told = done["response"]["duologue"]
            assert duologue_told["heard"] and duologue_told["unheard"], duologue_told
            # What the network and the receiver's buffer still held is over soon after, and then it is silent.
            after = [block for at, block in one.heard if held + 0.5 < at <= one.events[position][0]]
            assert not any(loud(block) for block in after)
            # The transcript that is shown is what was heard.
            (agent,) = one.room.remote_participants.values()
            shown = lambda: final_texts(one, agent.identity)
            told = done["response"]["output"][0]["content"][0]["transcript"].strip()
            await wait_for(lambda: shown() and shown()[-1].strip() == told, 5, lambda: (shown(), told))

    run(talk())


def test_only_the_first_person_in_the_room_is_heard(livekit, duologue):
    async def talk():
        place = admitted(duologue)
        async with guest(livekit.url, place["participant_token"]) as one:
            await one.until("session.created", timeout=30)
            other_token = token("bystander", place["room_name"], canPublish=True, canSubscribe=True)
            async with guest(livekit.url, other_token) as other:
                before = len(one.events)
                other.say(speech("jfk.flac"))
                await ask(other, "Say hello.")
                await asyncio.sleep(6)
                types = [event["type"] for _, event in one.events[before:]]
                assert "input_audio_buffer.speech_started" not in types and "response.created" not in types, types
                assert other.types() == [], "events are for whom the agent talks with"
                await ask(one, "Say hello in one short sentence.")
                await one.until("output_audio_buffer.started", after=before)
                await wait_for(lambda: loud(other.sound()), 10, lambda: "the reply is heard by all")

    run(talk())


def test_a_line_in_the_chat_is_answered(livekit, duologue):
    async def talk():
        place = admitted(duologue)
        async with guest(livekit.url, place["participant_token"], microphone=False) as one:
            await one.until("session.created", timeout=30)
            await one.room.local_participant.send_text("Say hello in one short sentence.", topic="lk.chat")
            position, _ = await one.until("response.done")
            await one.until("output_audio_buffer.stopped", after=position)
            assert loud(one.sound())

    run(talk())


def test_who_hangs_up_makes_room_for_the_next_at_once(livekit, duologue):
    async def talk():
        # More of them than there are sessions, and quicker than a lost one would be given up.
        for _ in range(6):
            place = admitted(duologue)
            async with guest(livekit.url, place["participant_token"]) as one:
                await one.until("session.created", timeout=10)
                await asyncio.sleep(1)

    run(talk())


def test_the_conversation_goes_on_when_livekit_is_killed_and_started_again(livekit, duologue):
    async def talk():
        place = admitted(duologue)
        async with guest(livekit.url, place["participant_token"]) as one:
            _, created = await one.until("session.created", timeout=30)
            await ask(one, "My name is Bartholomew. Say hello to me in one short sentence.")
            position, _ = await one.until("response.done")
            await one.until("output_audio_buffer.stopped", after=position)
            await asyncio.to_thread(livekit.kill)
            await asyncio.sleep(1)
            await asyncio.to_thread(livekit.start)
            await wait_for(lambda: one.reconnects, 30, lambda: "the client noticed")
            agents = lambda: [
                one.identity for one in one.room.remote_participants.values()
                if one.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT and one.track_publications
            ]
            await wait_for(lambda: agents(), 60, lambda: one.room.remote_participants)
            await asyncio.sleep(3)
            assert len(agents()) == 1, "one agent and not two"
            before, since = len(one.events), time.monotonic()
            one.say(speech("austen-0930.flac"))
            position, heard = await one.until("conversation.item.input_audio_transcription.completed", after=before)
            assert word_error_rate("he might even have been made amiable himself", heard["transcript"]) <= 0.3
            await one.until("output_audio_buffer.started", after=before)
            position, done = await one.until("response.done", after=before)
            assert done["response"]["id"].split("_")[1] == created["session"]["id"].split("_")[1], "another session"
            await wait_for(lambda: loud(one.sound(since=since)), 10, lambda: "the reply is heard")
            # It remembers what came before.
            await one.send({"type": "conversation.item.retrieve", "item_id": heard["item_id"]})
            await one.until("conversation.item.retrieved", after=before)

    run(talk())


def test_a_reply_goes_on_while_broken_signalling_is_resumed(lonely_livekit, tmp_path):
    livekit = lonely_livekit

    async def talk():
        async with guest(livekit.url, admitted(duologue)["participant_token"]) as one:
            await one.until("session.created", timeout=30)
            await ask(one, LONG)
            await one.until("output_audio_buffer.started")
            await asyncio.sleep(1)
            proxy.cut()
            await asyncio.to_thread(duologue.wait_until_told, "the LiveKit session is resumed", 10)
            await asyncio.sleep(0.5)
            resumed = time.monotonic()
            await asyncio.sleep(1)
            assert loud(one.sound(since=resumed)), "the reply is not heard any more"
            (agent,) = one.room.remote_participants.values()
            # Both ways: an event of ours is carried out, and its answer comes.
            await one.send({"type": "response.cancel"})
            await one.until("output_audio_buffer.cleared", timeout=10)
            after = len(one.events)
            one.say(speech("austen-0930.flac"))
            await one.until("conversation.item.input_audio_transcription.completed", after=after)
            position, _ = await one.until("output_audio_buffer.started", after=after)
            started = one.events[position][0]
            await wait_for(lambda: loud(one.sound(since=started)), 10, lambda: "the reply is heard")

    proxy = Proxy(livekit.port)
    duologue = Duologue(tmp_path, proxy.url, "--livekit-room", "study", *QUICK)
    try:
        duologue.wait_until_told("in a LiveKit room")
        run(talk())
        assert not duologue.told("joined anew"), "it was not resumed"
    finally:
        duologue.stop()
        proxy.stop()


def test_a_token_that_the_server_renews_is_the_one_that_we_come_back_with(lonely_livekit, tmp_path):
    livekit = lonely_livekit

    async def talk():
        async with guest(livekit.url, admitted(duologue)["participant_token"], microphone=False) as one:
            await one.until("session.created", timeout=30)
            (agent,) = one.room.remote_participants
            joined = len(proxy.tokens)
            grants = {"room": "study", "roomAdmin": True}
            # The server renews the token of a participant whose claims are changed, as it does every five minutes.
            await asyncio.to_thread(
                livekit.api, "RoomService/UpdateParticipant", grants, room="study", identity=agent, metadata="renewed"
            )
            await wait_for(lambda: one.room.remote_participants[agent].metadata == "renewed", 10, lambda: "the change")
            await asyncio.sleep(1)
            proxy.cut()
            await asyncio.to_thread(duologue.wait_until_told, "the LiveKit session is resumed", 10)
            assert [claims.get("metadata") for claims in proxy.tokens[joined:]] == ["renewed"]
            await one.send({"type": "session.update", "session": {"type": "realtime"}})
            await one.until("session.updated", timeout=10)

    proxy = Proxy(livekit.port)
    duologue = Duologue(tmp_path, proxy.url, "--livekit-room", "study", *BARE)
    try:
        duologue.wait_until_told("in a LiveKit room")
        run(talk())
    finally:
        duologue.stop()
        proxy.stop()


def test_servers_share_rooms_and_one_that_is_full_is_sent_none(lonely_livekit, tmp_path):
    servers = [Duologue(tmp_path, lonely_livekit.url, "--max-sessions", "1", *BARE) for _ in range(2)]
    talks = "somebody is in the LiveKit room"

    async def talk():
        first = admitted(servers[0])["participant_token"]
        second = admitted(servers[0])["participant_token"]
        async with guest(lonely_livekit.url, first, microphone=False) as ada:
            await ada.until("session.created", timeout=30)
            # The server is told of what a worker has left within seconds, not at once.
            await asyncio.sleep(3)
            async with guest(lonely_livekit.url, second, microphone=False) as bob:
                await bob.until("session.created", timeout=30)
                assert [one.log.read_text().count(talks) for one in servers] == [1, 1]

    try:
        for one in servers:
            one.wait_until_told("rooms of LiveKit are taken")
        run(talk())
    finally:
        for one in servers:
            one.stop()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_another_server_goes_on_with_the_conversation_of_one_that_has_ended(lonely_livekit, tmp_path, how):
    redis = Redis(tmp_path)
    journal = ["--journal", redis.url, *QUICK]
    servers = [Duologue(tmp_path, lonely_livekit.url, *journal) for _ in range(2)]
    truth = "he might even have been made amiable himself"

    async def talk():
        place = admitted(servers[0])
        async with guest(lonely_livekit.url, place["participant_token"]) as one:
            _, first = await one.until("session.created", timeout=30)
            one.say(speech("austen-0930.flac"))
            _, heard = await one.until("conversation.item.input_audio_transcription.completed")
            assert word_error_rate(truth, heard["transcript"]) <= 0.3, heard["transcript"]
            position, _ = await one.until("response.done")
            await one.until("output_audio_buffer.stopped", after=position)
            (talking,) = [one for one in servers if one.told("somebody is in the LiveKit room")]
            (other,) = [one for one in servers if one is not talking]
            before = len(one.events)
            talking.process.send_signal(how)
            killed = time.monotonic()
            position, again = await one.until("session.created", after=before, timeout=30)
            print(f"went on after {one.events[position][0] - killed:.1f} s")
            assert again["session"]["id"] != first["session"]["id"]
            assert again["session"]["duologue"]["resumed"], again["session"]["duologue"]
            known = lambda: [event["item"] for _, event in one.events[before:] if event["type"] == "conversation.item.done"]
            await wait_for(lambda: len(known()) == again["session"]["duologue"]["resumed_items"], 10, known)
            said = [part.get(kind) for item in known() for part in item["content"] for kind in ("transcript", "text")]
            assert heard["transcript"] in said, said
            assert other.told("somebody is in the LiveKit room")
            # One hears it again.
            after = len(one.events)
            await ask(one, "Say hello in one short sentence.")
            position, _ = await one.until("output_audio_buffer.started", after=after)
            started = one.events[position][0]
            await wait_for(lambda: loud(one.sound(since=started)), 10, lambda: "the reply is heard")

    try:
        for one in servers:
            one.wait_until_told("rooms of LiveKit are taken")
        run(talk())
    finally:
        for one in servers:
            one.stop()
        redis.stop()


def test_a_room_is_joined_by_name_and_on_sigterm_left_after_the_conversation(lonely_livekit, tmp_path):
    livekit = lonely_livekit

    async def stay(server, place):
        async with guest(livekit.url, place) as one:
            position, _ = await one.until("session.created", timeout=30)
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.wait_until_told, "no more sessions are taken", 10)
            await asyncio.sleep(2)
            await one.send({"type": "session.update", "session": {"type": "realtime"}})
            await one.until("session.updated", after=position, timeout=10)
            assert server.process.poll() is None

    one = Duologue(tmp_path, livekit.url, "--livekit-room", "parlour", *BARE)
    try:
        one.wait_until_told("in a LiveKit room")
        rooms = livekit.api("RoomService/ListRooms", {"roomList": True})["rooms"]
        assert "parlour" in [room["name"] for room in rooms]
        place = admitted(one)
        assert place["room_name"] == "parlour"
        refused = httpx.post(f"{one.url}/v1/livekit/token", json={"room_name": "elsewhere"})
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "room_name"
        run(stay(one, place["participant_token"]))
        assert one.process.wait(30) == 0
    finally:
        one.stop()


def test_an_agent_with_a_name_comes_only_where_it_is_asked_for(lonely_livekit, tmp_path):
    async def talk():
        async with guest(lonely_livekit.url, token("ada", "elsewhere", canPublish=True), microphone=False) as ada:
            place = admitted(duologue)
            async with guest(lonely_livekit.url, place["participant_token"], microphone=False) as one:
                await one.until("session.created", timeout=30)
            assert not ada.room.remote_participants

    duologue = Duologue(tmp_path, lonely_livekit.url, "--livekit-agent", "duo", *BARE)
    try:
        duologue.wait_until_told("rooms of LiveKit are taken")
        run(talk())
    finally:
        duologue.stop()


def test_what_keeps_us_out_is_named(livekit, tmp_path):
    for told, keys in [
        ("does not know the API key", {"key": "nobody"}),
        ("LIVEKIT_API_SECRET is not the secret", {"secret": "x" * 40}),
    ]:
        one = Duologue(tmp_path, livekit.url, *BARE, **keys)
        try:
            assert one.process.wait(120) != 0
            assert one.told(told), one.log.read_text()[-2000:]
            assert not one.told("eyJ"), "a token is in the log"
        finally:
            one.stop()
    one = Duologue(tmp_path, "ws://127.0.0.1:9", *BARE)
    try:
        one.wait_until_told("cannot reach the LiveKit server at ws://127.0.0.1:9")
    finally:
        one.stop()


def test_a_server_without_livekit_gives_no_tokens(url):
    answer = httpx.post(f"{url}/v1/livekit/token", json={})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "livekit_off"
