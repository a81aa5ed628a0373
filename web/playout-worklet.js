// The speaker's side of the audio thread: 24 kHz pieces in, device rate out, and word of how far
// it got, every 20 ms and whenever something happens.

import { WIRE_RATE } from "./pcm.js";
import { PlayoutQueue } from "./playout-queue.js";
import { Resampler } from "./resampler.js";

const REPORT_S = 0.02;

class Playout extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = new PlayoutQueue(WIRE_RATE);
    this.resampler = new Resampler(WIRE_RATE, sampleRate);
    this.source = new Float32Array(512);
    this.block = new Float32Array(1024);
    this.ready = 0; // samples at the start of `block` not yet given out
    this.reported = 0;
    this.energy = 0;
    this.counted = 0;
    this.open = true;
    this.port.onmessage = ({ data }) => this.#command(data);
  }

  #command({ op, item, samples, position }) {
    if (op === "push") this.queue.push(item, samples);
    else if (op === "end") this.queue.end(item);
    else if (op === "pause") this.queue.pause();
    else if (op === "resume") this.queue.resume(item, position);
    else if (op === "clear") this.queue.clear(item);
    else if (op === "close") this.open = false;
  }

  process(_inputs, [output]) {
    const channel = output[0];
    while (this.ready < channel.length) {
      const need = Math.max(1, this.resampler.needed(channel.length - this.ready));
      if (this.source.length < need) this.source = new Float32Array(need);
      const source = this.source.subarray(0, need);
      this.queue.read(source);
      const room = this.ready + this.resampler.most(need);
      if (this.block.length < room) {
        const larger = new Float32Array(room);
        larger.set(this.block.subarray(0, this.ready));
        this.block = larger;
      }
      this.ready += this.resampler.push(source, this.block.subarray(this.ready));
    }
    channel.set(this.block.subarray(0, channel.length));
    this.block.copyWithin(0, channel.length, this.ready);
    this.ready -= channel.length;
    for (let c = 1; c < output.length; c++) output[c].set(channel);
    for (let i = 0; i < channel.length; i++) this.energy += channel[i] * channel[i];
    this.counted += channel.length;
    this.#report();
    return this.open;
  }

  #report() {
    const queue = this.queue;
    const due = currentTime - this.reported >= REPORT_S;
    if (!due && queue.events.length === 0) return;
    this.port.postMessage({
      time: currentTime + 128 / sampleRate,
      events: queue.events,
      item: queue.item,
      samples: queue.played,
      running: queue.running,
      buffered: queue.buffered,
      underruns: queue.underruns,
      rms: Math.sqrt(this.energy / Math.max(1, this.counted)),
    });
    queue.events = [];
    this.reported = currentTime;
    this.energy = 0;
    this.counted = 0;
  }
}

registerProcessor("duologue-playout", Playout);
