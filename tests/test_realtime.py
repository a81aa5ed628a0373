"""`/v1/realtime` with the stock openai client: a spoken question, a spoken answer, interruptions."""

import asyncio
import base64
import io

import numpy as np
import soundfile

from conftest import RATE, speech, word_error_rate, words
from realtime import person

# A small model may refuse to count to a hundred, but it repeats what it is given: 22 seconds of it.
LONG = (
    "Repeat this text word for word: The old ship left the harbour in the early morning. The wind was cold and the "
    "waves were high. The captain stood at the wheel and looked at the grey sky. The sailors sang a song about their "
    "homes far away. At noon the sun came out and the sea was calm. They saw an island with green trees and white "
    "sand. They went ashore and found fresh water and fruit. In the evening they made a fire and told stories until "
    "midnight."
)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 240))


async def type_and_ask(one, text):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await one.connection.conversation.item.create(item=item)
    await one.connection.response.create()


def transcribe(client, samples):
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return client.audio.transcriptions.create(model="whisper-1", file=("reply.wav", file.getvalue())).text


def test_a_spoken_question_is_answered_aloud_with_the_events_in_order(url, client):
    async def talk():
        async with person(url, instructions="Answer in one short sentence.") as one:
            one.say(speech("austen-0930.flac"))
            _, done = await one.until("response.done")
            assert done.response.status == "completed", done.response.status_details
            _, heard = await one.until("conversation.item.input_audio_transcription.completed")
            truth = "he might even have been made amiable himself"
            assert word_error_rate(truth, heard.transcript) <= 0.3, heard.transcript
            assert not one.errors()
            kinds = [kind for kind in one.types() if not kind.startswith("conversation.item.input_audio_transcription")]
            expected = [
                "input_audio_buffer.speech_started",
                "input_audio_buffer.speech_stopped",
                "input_audio_buffer.committed",
                "conversation.item.added",
                "conversation.item.done",
                "response.created",
                "response.output_item.added",
                "conversation.item.added",
                "response.content_part.added",
                "response.output_audio_transcript.delta",
                "response.output_audio.delta",
                "response.output_audio.done",
                "response.output_audio_transcript.done",
                "response.content_part.done",
                "conversation.item.done",
                "response.output_item.done",
                "response.done",
            ]
            positions = iter(kinds)
            missing = [kind for kind in expected if kind not in positions]
            assert not missing, f"{missing} not in order in {kinds}"
            return done.response.id, one.sound(done.response.id), one.transcript(done.response.id)

    _, sound, text = run(talk())
    assert len(sound) > RATE / 2
    # The spoken reply, transcribed again, gives its own text back.
    assert word_error_rate(text, transcribe(client, sound)) <= 0.25, (text, transcribe(client, sound))


def test_speech_over_a_long_reply_stops_it_and_is_answered(url):
    async def talk():
        async with person(url) as one:
            await type_and_ask(one, LONG)
            await one.until("response.output_audio.delta")
            await asyncio.sleep(2.0)
            mark = len(one.events)
            one.say(speech("jfk.flac"))
            cut, done = await one.until("response.done", after=mark)
            assert done.response.status == "cancelled"
            assert done.response.status_details.reason == "turn_detected"
            assert one.to_say, "the reply ended only after the whole interruption was said"
            # What is told of the reply is what was heard of it: some of it, and not all.
            heard = done.response.output[0].content[0].transcript
            assert heard and "midnight" not in heard.lower(), heard
            assert words(heard) == words(one.transcript(done.response.id))
            # The interruption is answered. (A speaker who pauses may be answered, and interrupt, once more.)
            await one.until("response.done", after=cut + 1, where=lambda event: event.response.status == "completed")
            # Nothing of the stopped reply came after its end.
            late = [
                event
                for _, event in one.events[cut:]
                if event.type == "response.output_audio.delta" and event.response_id == done.response.id
            ]
            assert not late
            # The history says the same.
            await one.connection.conversation.item.retrieve(item_id=done.response.output[0].id)
            _, kept = await one.until("conversation.item.retrieved")
            assert kept.item.content[0].transcript == heard
            assert kept.item.status == "incomplete"

    run(talk())


def test_a_client_that_truncates_decides_what_was_heard(url):
    async def talk():
        async with person(url, microphone=False) as one:
            await type_and_ask(one, LONG)
            _, first = await one.until("response.output_audio.delta")
            await asyncio.sleep(3.0)
            await one.connection.response.cancel()
            _, done = await one.until("response.done")
            assert done.response.status == "cancelled"
            assert done.response.status_details.reason == "client_cancelled"
            mark = len(one.events)
            await one.connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=1_000)
            _, event = await one.until("conversation.item.truncated", after=mark)
            assert event.audio_end_ms == 1_000
            await one.connection.conversation.item.retrieve(item_id=first.item_id)
            _, kept = await one.until("conversation.item.retrieved")
            assert len(kept.item.content[0].transcript.split()) <= 6, kept.item.content[0].transcript

    run(talk())


def test_push_to_talk_waits_for_the_client(url):
    async def talk():
        async with person(url, microphone=False, audio={"input": {"turn_detection": None}}) as one:
            sound = base64.b64encode(speech("goforward.flac").tobytes()).decode()
            await one.connection.input_audio_buffer.append(audio=sound)
            await asyncio.sleep(1.5)
            assert "response.created" not in one.types()
            await one.connection.input_audio_buffer.commit()
            _, heard = await one.until("conversation.item.input_audio_transcription.completed")
            assert "forward" in heard.transcript.lower()
            await one.connection.response.create()
            _, done = await one.until("response.done")
            assert done.response.status == "completed"

    run(talk())


def test_a_text_reply_has_no_sound(url):
    async def talk():
        async with person(url, microphone=False, output_modalities=["text"]) as one:
            await type_and_ask(one, "Say hello.")
            _, done = await one.until("response.done")
            assert done.response.output[0].content[0].type == "output_text"
            assert done.response.output[0].content[0].text.strip()
            assert "response.output_audio.delta" not in one.types()

    run(talk())


def test_a_reply_beside_the_conversation_leaves_no_trace_in_it(url):
    async def talk():
        async with person(url) as one:
            item = {"id": "word", "type": "message", "role": "user"}
            item["content"] = [{"type": "input_text", "text": "The word is pineapple."}]
            await one.connection.conversation.item.create(item=item)
            ask = {"type": "message", "role": "user"}
            ask["content"] = [{"type": "input_text", "text": "Which word did I name? Answer with the word alone."}]
            await one.connection.response.create(
                response={
                    "conversation": "none",
                    "output_modalities": ["text"],
                    "metadata": {"purpose": "check"},
                    "input": [{"type": "item_reference", "id": "word"}, ask],
                }
            )
            _, done = await one.until("response.done")
            assert done.response.status == "completed"
            assert done.response.conversation_id is None
            assert done.response.metadata == {"purpose": "check"}
            assert "pineapple" in done.response.output[0].content[0].text.lower()
            await one.connection.conversation.item.retrieve(item_id=done.response.output[0].id)
            _, error = await one.until("error")
            assert error.error.code == "item_not_found", error
            assert one.types().count("conversation.item.added") == 1

    run(talk())


def test_a_telephone_encoding_carries_the_conversation(url):
    async def talk():
        audio = {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}
        async with person(url, microphone=False, audio=audio) as one:
            await type_and_ask(one, "Say hello in one short sentence.")
            _, done = await one.until("response.done")
            assert done.response.status == "completed"
            data = b"".join(
                base64.b64decode(event.delta) for _, event in one.events if event.type == "response.output_audio.delta"
            )
            # µ-law has its silence at 0xff; speech is neither that nor noise at full scale.
            levels = np.frombuffer(data, dtype=np.uint8)
            assert len(levels) > 4_000
            assert len(np.unique(levels)) > 60

    run(talk())


def test_mistakes_are_told_and_the_session_goes_on(url):
    async def talk():
        async with person(url, microphone=False) as one:
            connection = one.connection
            await connection.send({"type": "response.cancel", "event_id": "mine"})
            _, error = await one.until("error")
            assert error.error.code == "response_cancel_not_active"
            assert error.error.event_id == "mine"
            for event, code in [
                ({"type": "no.such.event"}, "unknown_event"),
                ({"type": "input_audio_buffer.append", "audio": "@@@"}, "invalid_value"),
                ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
                ({"type": "conversation.item.delete", "item_id": "nobody"}, "item_not_found"),
                ({"type": "session.update", "session": {"type": "realtime", "audio": {"output": {"voice": "grandma"}}}}, "invalid_value"),
            ]:
                mark = len(one.events)
                await connection.send(event)
                _, error = await one.until("error", after=mark)
                assert error.error.code == code, error
            await type_and_ask(one, "Say hello.")
            _, done = await one.until("response.done")
            assert done.response.status == "completed"

    run(talk())


def test_two_people_at_once_do_not_hear_each_other(url):
    async def one_conversation(word):
        async with person(url, microphone=False) as one:
            await type_and_ask(one, f"Repeat this word and nothing else: {word}")
            _, done = await one.until("response.done")
            assert done.response.status == "completed"
            return one.transcript(done.response.id).lower()

    async def both():
        return await asyncio.gather(one_conversation("banana"), one_conversation("elephant"))

    banana, elephant = run(both())
    assert "banan" in banana and "elephant" not in banana, banana
    assert "elephant" in elephant and "banan" not in elephant, elephant
