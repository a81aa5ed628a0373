"""`talk` and `say` with microphone and loudspeaker: a PulseAudio of our own, whose two devices lead nowhere, stands
for the hardware. What is played into the one is what the microphone hears; what the other is given is recorded."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import SPEECH, word_error_rate, words

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ALSA is Linux's")

CARD_RATE = 48_000


@pytest.fixture
def card(tmp_path):
    """The environment of a program that has this sound card."""
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    (tmp_path / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(runtime)}
    data = os.environ.get("XDG_DATA_HOME", os.path.expanduser("~/.local/share"))
    environment.setdefault("DUOLOGUE_DATA_DIR", f"{data}/duologue")
    daemon = subprocess.Popen(
        ["pulseaudio", "-n", "--exit-idle-time=-1", "--daemonize=no"]
        + ["-L", "module-native-protocol-unix"]
        + ["-L", "module-null-sink sink_name=loudspeaker"]
        + ["-L", "module-null-sink sink_name=room"]
        + ["-L", "module-remap-source master=room.monitor source_name=microphone"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: pactl(environment, "info").returncode == 0, 20)
        assert pactl(environment, "set-default-sink", "loudspeaker").returncode == 0
        assert pactl(environment, "set-default-source", "microphone").returncode == 0
        yield environment
    finally:
        daemon.terminate()
        daemon.wait(timeout=10)


def pactl(environment, *arguments):
    return subprocess.run(["pactl", *arguments], env=environment, capture_output=True, text=True)


def wait_for(condition, seconds):
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.05)


class Recording:
    """What the loudspeaker is given, while it lasts."""

    def __init__(self, environment, path):
        self.path = path
        self.raw = open(path, "wb")
        self.process = subprocess.Popen(
            ["parec", "-d", "loudspeaker.monitor", "--format=s16le", f"--rate={CARD_RATE}", "--channels=1"],
            env=environment,
            stdout=self.raw,
        )

    def samples(self):
        return np.fromfile(self.path, dtype="<i2").astype(np.float32) / 32768

    def finish(self, path):
        self.process.terminate()
        self.process.wait(timeout=10)
        self.raw.close()
        samples = self.samples()
        loud = np.flatnonzero(np.abs(samples) > 0.01)
        assert len(loud), "the loudspeaker was given silence"
        margin = CARD_RATE // 2
        soundfile.write(path, samples[max(0, loud[0] - margin) : loud[-1] + margin], CARD_RATE)
        return path


def transcribed(client, path):
    with open(path, "rb") as file:
        return client.audio.transcriptions.create(model="whisper-1", file=file).text


def test_say_plays_on_the_loudspeaker(card, client, tmp_path):
    text = "Good morning. This is a test of the loudspeaker."
    recording = Recording(card, tmp_path / "played.raw")
    subprocess.run([os.environ["DUOLOGUE_BIN"], "say", text], env=card, check=True, timeout=120)
    heard = transcribed(client, recording.finish(tmp_path / "played.wav"))
    assert word_error_rate(text, heard) <= 0.15, heard


def test_talk_listens_to_the_microphone_and_answers_on_the_loudspeaker(card, client, url, tmp_path):
    question = SPEECH / "asterisk-demo-thanks.flac"
    recording = Recording(card, tmp_path / "played.raw")
    log = open(tmp_path / "talk.log", "wb+")
    talk = subprocess.Popen(
        [os.environ["DUOLOGUE_BIN"], "talk", "--url", url, "--instructions", "Answer in one short sentence."],
        env=card,
        stdout=log,
        stderr=subprocess.STDOUT,
    )

    def said():
        return (tmp_path / "talk.log").read_text()

    try:
        # It listens, beside the recording and the room itself.
        wait_for(lambda: pactl(card, "list", "short", "source-outputs").stdout.count("\n") > 2, 30)
        samples, rate = soundfile.read(question, dtype="float32")
        soundfile.write(tmp_path / "question.wav", samples, rate)
        subprocess.run(["paplay", "-d", "room", tmp_path / "question.wav"], env=card, check=True, timeout=60)
        wait_for(lambda: "duologue: " in said(), 90)
        talk.send_signal(signal.SIGINT)
        assert talk.wait(timeout=20) == 0, said()
    finally:
        talk.kill()
    lines = said().splitlines()
    asked = " ".join(line.removeprefix("you: ") for line in lines if line.startswith("you: "))
    answered = " ".join(line.removeprefix("duologue: ").split(" [")[0] for line in lines if line.startswith("duologue: "))
    assert {"thank", "trying"} <= set(words(asked)), asked
    heard = transcribed(client, recording.finish(tmp_path / "played.wav"))
    assert word_error_rate(answered, heard) <= 0.4, (answered, heard)


def test_without_a_sound_card_it_is_said_what_to_do(tmp_path, url):
    (tmp_path / ".asoundrc").write_text("pcm.!default { type hw card 31 }\nctl.!default { type hw card 31 }\n")
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [os.environ["DUOLOGUE_BIN"], "talk", "--url", url, "--timeout", "5"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "microphone" in done.stderr, done.stderr
