"""`audio.speech` and `audio.transcriptions` with the stock openai client."""

import io

import numpy as np
import openai
import pytest
import soundfile

from conftest import SPEECH, word_error_rate

SENTENCE = "The quick brown fox jumps over the lazy dog behind the old house."


def test_a_recording_is_transcribed(client):
    with open(SPEECH / "jfk.flac", "rb") as file:
        transcript = client.audio.transcriptions.create(model="whisper-1", file=file)
    truth = "And so my fellow Americans ask not what your country can do for you ask what you can do for your country"
    assert word_error_rate(truth, transcript.text) <= 0.1, transcript.text


def test_segments_and_words_have_times_in_order(client):
    with open(SPEECH / "jfk.flac", "rb") as file:
        transcript = client.audio.transcriptions.create(
            model="whisper-1", file=file, response_format="verbose_json", timestamp_granularities=["word"]
        )
    assert 10 < transcript.duration < 12
    times = [(word.start, word.end) for word in transcript.words]
    assert len(times) > 15
    assert all(start <= end for start, end in times)
    assert times == sorted(times)


@pytest.mark.parametrize("form", ["text", "srt", "vtt"])
def test_plain_formats_are_given_as_asked(client, form):
    with open(SPEECH / "goforward.flac", "rb") as file:
        text = client.audio.transcriptions.create(model="whisper-1", file=file, response_format=form)
    assert "forward" in text.lower()
    assert ("-->" in text) == (form != "text")


def test_what_is_spoken_is_heard_again(client):
    answer = client.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCE, response_format="wav")
    transcript = client.audio.transcriptions.create(model="whisper-1", file=("speech.wav", answer.content))
    assert word_error_rate(SENTENCE, transcript.text) <= 0.1, transcript.text


def test_speech_comes_in_every_offered_format_and_is_loud_enough(client):
    for form in ["wav", "pcm", "opus"]:
        content = client.audio.speech.create(model="tts-1", voice="alloy", input=SENTENCE, response_format=form).content
        if form == "pcm":
            samples, rate = np.frombuffer(content, dtype="<i2") / 32768, 24_000
        else:
            samples, rate = soundfile.read(io.BytesIO(content))
        assert 2.5 < len(samples) / rate < 8, form
        assert 0.03 < np.sqrt(np.mean(np.square(samples))) < 0.4, form
        assert np.max(np.abs(samples)) < 1.0, form


def test_speech_is_streamed_while_it_is_made(client):
    text = " ".join([SENTENCE] * 12)
    sizes = []
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=text, response_format="pcm"
    ) as answer:
        for piece in answer.iter_bytes():
            sizes.append(len(piece))
    assert len(sizes) > 10
    assert max(sizes) < sum(sizes) / 4


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": " "}, "input"),
        ({"input": "x" * 40_000}, "input"),
        ({"voice": "grandma"}, "voice"),
        ({"response_format": "mp3"}, "response_format"),
        ({"speed": 9.0}, "speed"),
    ],
)
def test_speech_that_cannot_be_made_is_refused_by_name(client, change, param):
    request = {"model": "tts-1", "voice": "alloy", "input": "Hello.", "response_format": "wav"} | change
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.speech.create(**request)
    assert refused.value.param == param


@pytest.mark.parametrize("content", [b"", b"this is no sound", b"RIFF\xff\xff\xff\xffWAVEfmt "])
def test_a_file_that_is_no_sound_is_refused(client, content):
    with pytest.raises(openai.BadRequestError) as refused:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", content))
    assert refused.value.param == "file"


def test_the_models_that_are_here_are_listed(client):
    kinds = {model.id: model.duologue["kind"] for model in client.models.list()}
    assert set(kinds.values()) == {"llm", "asr", "tts"}
    first = next(iter(kinds))
    assert client.models.retrieve(first).id == first
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-17")
