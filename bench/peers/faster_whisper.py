"""faster-whisper as its documentation uses it on a CPU: int8, a beam of five."""

import json
import sys
import time

from faster_whisper import WhisperModel

model = WhisperModel(sys.argv[1], device="cpu", compute_type="int8", cpu_threads=int(sys.argv[2]))
beam = int(sys.argv[3])
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    start = time.perf_counter()
    segments, _ = model.transcribe(task["file"], language="en", beam_size=beam)
    text = " ".join(segment.text.strip() for segment in segments)
    print(json.dumps({"total": time.perf_counter() - start, "text": text}), flush=True)
