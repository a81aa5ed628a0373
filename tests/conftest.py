"""What the whole-system tests share: the running server, recorded speech, and a scorer."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from openai import OpenAI

SPEECH = Path(__file__).parent / "data" / "speech"
RATE = 24_000


@pytest.fixture(scope="session")
def url():
    url = os.environ.get("DUOLOGUE_URL")
    assert url, "set DUOLOGUE_URL to a running server, such as http://127.0.0.1:8080 (`cargo xtask test` does)"
    return url.rstrip("/")


@pytest.fixture(scope="session")
def client(url):
    """The stock client; nothing of it is changed but its addresses."""
    return OpenAI(
        api_key="none",
        base_url=f"{url}/v1",
        websocket_base_url=url.replace("http", "ws", 1) + "/v1",
        max_retries=0,
        timeout=120,
    )


def speech(name):
    """A recorded clip as 24 kHz mono s16."""
    samples, rate = soundfile.read(SPEECH / name, dtype="float32")
    assert samples.ndim == 1
    length = int(len(samples) * RATE / rate)
    resampled = np.interp(np.arange(length) * rate / RATE, np.arange(len(samples)), samples)
    return (resampled * 32767).astype(np.int16)


NUMBERS = "zero one two three four five six seven eight nine ten".split()


def words(text):
    """The words of a text as a listener would count them: no case, no punctuation, small numbers spelt out."""
    text = re.sub(r"\d+", lambda n: NUMBERS[int(n[0])] if int(n[0]) < len(NUMBERS) else n[0], text.lower())
    return re.sub(r"[^a-z0-9' ]+", " ", text).replace("'", "").split()


def word_error_rate(expected, heard):
    """Levenshtein distance in words over the expected number of them."""
    expected, heard = words(expected), words(heard)
    row = list(range(len(heard) + 1))
    for i, word in enumerate(expected, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1] / max(1, len(expected))
