// The microphone's side of the audio thread: device rate in, 20 ms pieces of 24 kHz 16-bit out.

import { WIRE_RATE, toInt16 } from "./pcm.js";
import { Resampler } from "./resampler.js";

const PIECE = WIRE_RATE / 50;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, WIRE_RATE);
    this.block = new Float32Array(this.resampler.most(128));
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.energy = 0;
    this.open = true;
    this.port.onmessage = () => (this.open = false);
  }

  process([input]) {
    const channel = input[0];
    if (channel === undefined) return this.open;
    if (this.block.length < this.resampler.most(channel.length)) {
      this.block = new Float32Array(this.resampler.most(channel.length));
    }
    const count = this.resampler.push(channel, this.block);
    for (let i = 0; i < count; i++) {
      const sample = this.block[i];
      this.piece[this.filled++] = toInt16(sample);
      this.energy += sample * sample;
      if (this.filled === PIECE) this.#send();
    }
    return this.open;
  }

  #send() {
    const samples = this.piece;
    this.port.postMessage({ samples, rms: Math.sqrt(this.energy / PIECE) }, [samples.buffer]);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.energy = 0;
  }
}

registerProcessor("duologue-capture", Capture);
