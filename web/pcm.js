// Samples as the wire has them: signed 16-bit, little-endian, mono, base64.

/** The rate of `audio/pcm` on the wire, Hz. */
export const WIRE_RATE = 24000;

/** One sample in -1..1 as a 16-bit one; louder than full scale is clipped. */
export function toInt16(sample) {
  const scaled = Math.round(sample * 32767);
  return Math.max(-32768, Math.min(32767, scaled));
}

/** @param {Int16Array} samples */
export function encode(samples) {
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  for (let i = 0; i < samples.length; i++) view.setInt16(i * 2, samples[i], true);
  const bytes = new Uint8Array(view.buffer);
  let binary = "";
  for (let i = 0; i < bytes.length; i += 8192) {
    binary += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(binary);
}

/** @returns {Int16Array} half a sample at the end is dropped */
export function decode(base64) {
  const binary = atob(base64);
  const samples = new Int16Array(binary.length >> 1);
  for (let i = 0; i < samples.length; i++) {
    samples[i] = ((binary.charCodeAt(2 * i) | (binary.charCodeAt(2 * i + 1) << 8)) << 16) >> 16;
  }
  return samples;
}

/** Milliseconds of audio in a base64 piece, without decoding it. */
export function base64Ms(base64) {
  const padding = base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0;
  const bytes = (base64.length / 4) * 3 - padding;
  return (Math.floor(bytes / 2) / WIRE_RATE) * 1000;
}

/** Root mean square of a block in -1..1, as 0..1 on a scale the ear agrees with (-50..0 dB, bent so that speech at arm's length fills about half). */
export function loudness(rms) {
  if (rms <= 0) return 0;
  const decibels = 20 * Math.log10(rms);
  return Math.max(0, Math.min(1, (decibels + 50) / 50)) ** 1.5;
}
