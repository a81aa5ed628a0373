// Changes the sample rate of a stream, a block at a time.
//
// A polyphase windowed-sinc filter: the ratio of the rates is reduced to up/down, and for each
// of the `up` positions an output sample can have between two input samples there is one row of
// filter taps. Kaiser window (about 70 dB down at the lower of the two Nyquist frequencies).
// Sources: J. O. Smith, "Digital Audio Resampling"; J. F. Kaiser's window formula.
//
// It runs inside AudioWorklets, so it allocates nothing while it runs.

const ZERO_CROSSINGS = 24;
const BETA = 7;
// Half the transition band of that window, in cycles per sample of the lower rate.
const TRANSITION = 0.045;

export class Resampler {
  /** @param {number} inputRate Hz @param {number} outputRate Hz, both whole numbers */
  constructor(inputRate, outputRate) {
    const divisor = gcd(inputRate, outputRate);
    this.up = outputRate / divisor;
    this.down = inputRate / divisor;
    this.identity = this.up === this.down;
    const scale = Math.min(1, outputRate / inputRate);
    this.half = this.identity ? 1 : Math.ceil(ZERO_CROSSINGS / scale);
    this.taps = this.identity ? 1 : 2 * this.half;
    this.table = this.identity ? null : filterTable(this.up, this.half, scale);
    this.buffer = new Float32Array(this.taps + 4096);
    this.reset();
  }

  /** Forgets what it has heard; the next sample is the first of a new stream. */
  reset() {
    this.buffer.fill(0);
    // Silence before the stream, so that the first output sample lies on the first input sample.
    this.length = this.half - 1;
    this.start = 0;
    this.phase = 0;
  }

  /** How many more input samples must be pushed before `count` output samples can be had. */
  needed(count) {
    if (count <= 0) return 0;
    const last = this.start + Math.floor((this.phase + (count - 1) * this.down) / this.up);
    return Math.max(0, last + this.taps - this.length);
  }

  /** The most output samples that pushing `count` input samples can give. */
  most(count) {
    return Math.ceil(((count + this.taps) * this.up) / this.down) + 1;
  }

  /**
   * Takes all of `input`, writes what can be computed to `output`, and returns how many samples
   * that is. `output` must hold `most(input.length)`.
   */
  push(input, output) {
    this.#append(input);
    let written = 0;
    if (this.identity) {
      output.set(this.buffer.subarray(0, this.length));
      written = this.length;
      this.start = this.length;
    } else {
      const { taps, table, buffer } = this;
      while (this.start + taps <= this.length) {
        let sum = 0;
        for (let k = 0, row = this.phase * taps, at = this.start; k < taps; k++) {
          sum += table[row + k] * buffer[at + k];
        }
        output[written++] = sum;
        this.phase += this.down;
        const step = Math.floor(this.phase / this.up);
        this.start += step;
        this.phase -= step * this.up;
      }
    }
    const drop = Math.min(this.start, this.length);
    this.buffer.copyWithin(0, drop, this.length);
    this.length -= drop;
    this.start -= drop;
    return written;
  }

  #append(input) {
    if (this.length + input.length > this.buffer.length) {
      const larger = new Float32Array(2 * (this.length + input.length));
      larger.set(this.buffer.subarray(0, this.length));
      this.buffer = larger;
    }
    this.buffer.set(input, this.length);
    this.length += input.length;
  }
}

function filterTable(up, half, scale) {
  const taps = 2 * half;
  const cutoff = scale * (0.5 - TRANSITION);
  const table = new Float32Array(up * taps);
  for (let phase = 0; phase < up; phase++) {
    const row = new Float64Array(taps);
    let sum = 0;
    for (let k = 0; k < taps; k++) {
      const t = k - (half - 1) - phase / up;
      row[k] = 2 * cutoff * sinc(2 * cutoff * t) * kaiser(t / half);
      sum += row[k];
    }
    // Every row passes a constant unchanged; otherwise the rows would modulate each other.
    for (let k = 0; k < taps; k++) table[phase * taps + k] = row[k] / sum;
  }
  return table;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function kaiser(x) {
  return Math.abs(x) >= 1 ? 0 : bessel0(BETA * Math.sqrt(1 - x * x)) / bessel0(BETA);
}

// Modified Bessel function of the first kind, order 0, by its power series.
function bessel0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-12; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}
