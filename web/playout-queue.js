// The reply's audio between the network and the speaker.
//
// It waits for a little audio before it starts, so that a late packet does not tear a word; it
// can be held, let go on, or emptied at any sample, with fades too short to hear and long
// enough not to click; and it counts, item by item, the samples that really went out. The
// counts are what the server is told was heard.
//
// Everything is in samples at the wire's rate. It runs inside an AudioWorklet.

const FADE_S = 0.005;
const START_S = 0.04;
const START_MOST_S = 0.2;
// A server that does not pace itself may send a whole reply at once.
const CAPACITY_S = 180;
const REMEMBERED_CLEARS = 32;

export class PlayoutQueue {
  /** @param {number} rate Hz */
  constructor(rate) {
    this.rate = rate;
    this.fade = 1 / Math.round(FADE_S * rate);
    /** Samples to wait for before starting; grows with each underrun. */
    this.cushion = Math.round(START_S * rate);
    this.cushionMost = Math.round(START_MOST_S * rate);
    this.capacity = CAPACITY_S * rate;
    this.chunks = []; // {item, samples, at}
    this.buffered = 0;
    this.ended = new Set();
    this.cleared = [];
    this.running = false;
    this.waited = 0;
    this.paused = false;
    this.settled = false; // the fade of a pause is over
    this.clearing = null; // set of items to drop when the fade is over
    this.gain = 1;
    this.last = 0;
    this.item = null;
    this.played = 0;
    this.underruns = 0;
    this.overflows = 0;
    this.events = [];
  }

  /** Adds audio (16-bit). Returns false when it was dropped: cleared before, or no room. */
  push(item, samples) {
    if (this.cleared.includes(item)) return false;
    if (this.buffered + samples.length > this.capacity) {
      this.overflows++;
      return false;
    }
    this.chunks.push({ item, samples, at: 0 });
    this.buffered += samples.length;
    return true;
  }

  /** No more audio of this item will come: running dry is then its end, not an underrun. */
  end(item) {
    const known = this.item === item || this.chunks.some((chunk) => chunk.item === item);
    if (!known) return;
    this.ended.add(item);
    if (this.item === item && !this.running && this.buffered === 0) this.#drained();
  }

  pause() {
    if (this.paused) return;
    this.paused = true;
    this.settled = false;
  }

  /**
   * Goes on. With a position (samples of that item), the audio that follows begins there: what is
   * buffered from there on is dropped, and if it was played already it will be played again.
   */
  resume(item = null, position = null) {
    this.paused = false;
    this.waited = this.cushion; // it was playing: start without waiting again
    if (item === null || position === null || item !== this.item) return;
    this.ended.delete(item);
    let at = this.played;
    for (const chunk of this.chunks) {
      if (chunk.item !== item) continue;
      const left = chunk.samples.length - chunk.at;
      const keep = Math.max(0, Math.min(left, position - at));
      chunk.samples = chunk.samples.subarray(0, chunk.at + keep);
      this.buffered -= left - keep;
      at += keep;
    }
    this.played = Math.min(this.played, position);
    this.gain = 0;
  }

  /** Drops one item, or everything; later audio of the same items is ignored. Ends a pause. */
  clear(item = null) {
    const items = new Set(item === null ? this.chunks.map((chunk) => chunk.item) : [item]);
    if (item === null && this.item !== null) items.add(this.item);
    for (const each of items) {
      this.cleared.push(each);
      if (this.cleared.length > REMEMBERED_CLEARS) this.cleared.shift();
    }
    const audible = this.running && this.gain > 0 && items.has(this.item);
    if (audible) {
      this.clearing = items;
    } else {
      this.#drop(items);
    }
    this.paused = false;
  }

  /** Fills `out` with the next samples, -1..1, silence where there are none. */
  read(out) {
    for (let i = 0; i < out.length; i++) out[i] = this.#next();
  }

  #next() {
    const silent = this.paused || this.clearing !== null;
    if (silent && (!this.running || this.gain <= 0)) {
      this.#settle();
      return this.#silence();
    }
    if (!this.running) {
      if (!this.#ready()) return this.#silence();
      this.running = true;
      this.waited = 0;
    }
    const sample = this.#take();
    if (sample === null) return this.#silence();
    this.gain = silent ? this.gain - this.fade : Math.min(1, this.gain + this.fade);
    this.last = sample * Math.max(0, this.gain);
    return this.last;
  }

  // The fade is over: drop what is to be dropped, or hold.
  #settle() {
    if (this.clearing !== null) {
      this.#drop(this.clearing);
      this.clearing = null;
    } else if (!this.settled) {
      this.settled = true;
      this.running = false;
      this.gain = 0;
      this.#tell("paused");
    }
  }

  #ready() {
    if (this.buffered === 0) return false;
    this.waited++;
    return (
      this.buffered >= this.cushion ||
      this.waited >= this.cushion ||
      this.ended.has(this.chunks[0].item)
    );
  }

  #take() {
    while (this.chunks.length > 0 && this.chunks[0].at >= this.chunks[0].samples.length) {
      this.chunks.shift();
    }
    const chunk = this.chunks[0];
    if (chunk === undefined) {
      this.running = false;
      if (this.ended.has(this.item)) {
        this.#drained();
      } else {
        this.underruns++;
        this.cushion = Math.min(this.cushionMost, Math.round(this.cushion * 1.5));
        this.gain = 0; // what follows the gap fades in
        this.#tell("underrun");
      }
      return null;
    }
    if (chunk.item !== this.item) {
      if (this.item !== null && this.ended.has(this.item)) this.#drained();
      this.item = chunk.item;
      this.played = 0;
      this.gain = 1;
      this.#tell("started");
    }
    this.played++;
    this.buffered--;
    return chunk.samples[chunk.at++] / 32768;
  }

  // Lets the last sample die away instead of jumping to zero.
  #silence() {
    if (this.last === 0) return 0;
    this.last = Math.abs(this.last) < 1e-3 ? 0 : this.last * 0.9;
    return this.last;
  }

  #drained() {
    this.#tell("drained");
    this.ended.delete(this.item);
    this.item = null;
    this.gain = 1;
  }

  #drop(items) {
    const current = items.has(this.item);
    if (current) this.#tell("cleared");
    this.chunks = this.chunks.filter((chunk) => !items.has(chunk.item));
    this.buffered = this.chunks.reduce((sum, each) => sum + each.samples.length - each.at, 0);
    for (const each of items) this.ended.delete(each);
    if (current || this.buffered === 0) {
      this.item = null;
      this.running = false;
      this.waited = 0;
      this.gain = 1;
    }
  }

  #tell(type) {
    this.events.push({ type, item: this.item, samples: this.played });
  }
}
