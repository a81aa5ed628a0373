"""piper-tts as its documentation uses it: load a voice, synthesize a text, take the chunks as they come."""

import json
import sys
import time

from piper import PiperVoice

voice = PiperVoice.load(sys.argv[1])
for _ in voice.synthesize("Warming up."):
    pass
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    first, samples, rate = None, 0, 1
    for chunk in voice.synthesize(json.loads(line)["text"]):
        if first is None:
            first = time.perf_counter() - start
        samples += len(chunk.audio_int16_array)
        rate = chunk.sample_rate
    total = time.perf_counter() - start
    print(json.dumps({"first": first, "total": total, "seconds": samples / rate}), flush=True)
