// The reply's sound as a call brings it: through a gain, which is where an interruption is heard
// at once, and past a meter.

import { PlayoutClock } from "./playout-clock.js";

const FADE_S = 0.005;
const METER_MS = 40;

export class RemoteSound {
  /**
   * @param {AudioContext} context
   * @param {MediaStream} stream
   * @param {object} on as of `Audio`: `playing(event)`, `level(rms, underruns)`
   */
  constructor(context, stream, on) {
    this.context = context;
    this.on = on;
    this.clock = new PlayoutClock();
    this.delay = 80; // ms from the server's word to the ear, until it is measured
    // Without an element that plays it, Chromium gives a remote stream no samples.
    this.element = new window.Audio();
    this.element.muted = true;
    this.element.srcObject = stream;
    this.element.play().catch(() => {});
    this.source = context.createMediaStreamSource(stream);
    this.gain = context.createGain();
    this.meter = context.createAnalyser();
    this.meter.fftSize = 1024;
    this.samples = new Float32Array(this.meter.fftSize);
    this.source.connect(this.gain).connect(this.meter).connect(context.destination);
    this.timer = setInterval(() => this.#measure(), METER_MS);
  }

  close() {
    clearInterval(this.timer);
    this.source.disconnect();
    this.meter.disconnect();
    this.element.srcObject = null;
  }

  begin(item) {
    this.#loudness(1);
    this.clock.begin(item, performance.now());
    this.on.playing({ type: "started", item, ms: 0 });
  }

  /** All of the reply was heard, or dropped. */
  finish() {
    const { item } = this.clock;
    if (item === null) return;
    this.on.playing({ type: "drained", item, ms: this.clock.heard(performance.now(), 0) });
    this.clock.clear();
  }

  /** @param {"end"|"pause"|"clear"} op */
  command(op, item) {
    const now = performance.now();
    const playing = this.clock.item;
    if (playing === null || (item !== null && item !== playing)) return;
    if (op === "end") {
      this.clock.end(now);
      return;
    }
    this.#loudness(0);
    const ms = this.clock.heard(now, this.delay);
    if (op === "pause") this.clock.pause(now);
    else this.clock.clear();
    this.on.playing({ type: op === "pause" ? "paused" : "cleared", item: playing, ms });
  }

  resume(ms) {
    this.#loudness(1);
    this.clock.resume(ms, performance.now());
  }

  /** `{item, ms}` heard by now, or null. */
  heard() {
    const { item } = this.clock;
    return item === null ? null : { item, ms: this.clock.heard(performance.now(), this.delay) };
  }

  /** `{item, ms}` sent by now, or null. */
  sent() {
    const { item } = this.clock;
    return item === null ? null : { item, ms: this.clock.sent(performance.now()) };
  }

  #loudness(value) {
    const now = this.context.currentTime;
    this.gain.gain.cancelScheduledValues(now);
    this.gain.gain.setTargetAtTime(value, now, FADE_S / 3);
  }

  #measure() {
    this.meter.getFloatTimeDomainData(this.samples);
    let energy = 0;
    for (const sample of this.samples) energy += sample * sample;
    this.on.level(Math.sqrt(energy / this.samples.length), 0);
  }
}
