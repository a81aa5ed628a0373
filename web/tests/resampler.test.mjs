import assert from "node:assert/strict";
import { test } from "node:test";
import { Resampler } from "../resampler.js";

const DEVICE_RATES = [8000, 16000, 22050, 44100, 48000, 96000];

function sine(rate, hz, seconds, amplitude = 0.5) {
  return Float32Array.from({ length: Math.round(rate * seconds) }, (_, n) => amplitude * Math.sin((2 * Math.PI * hz * n) / rate));
}

function resample(input, from, to, blocks = () => 128) {
  const resampler = new Resampler(from, to);
  const parts = [];
  for (let at = 0, turn = 0; at < input.length; turn++) {
    const block = input.subarray(at, at + blocks(turn));
    const room = new Float32Array(resampler.most(block.length));
    parts.push(...room.subarray(0, resampler.push(block, room)));
    at += block.length;
  }
  return Float32Array.from(parts);
}

function rms(samples) {
  return Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);
}

for (const rate of DEVICE_RATES) {
  test(`a 1 kHz tone keeps its shape and its place from ${rate} Hz to 24 kHz and back`, () => {
    for (const [from, to] of [[rate, 24000], [24000, rate]]) {
      const output = resample(sine(from, 1000, 0.5), from, to);
      const wanted = sine(to, 1000, 0.5);
      const edge = Math.round(to * 0.02);
      let worst = 0;
      for (let n = edge; n < output.length - edge; n++) worst = Math.max(worst, Math.abs(output[n] - wanted[n]));
      assert.ok(worst < 0.003, `${from} -> ${to}: off by ${worst}`);
      assert.ok(output.length > wanted.length - to * 0.005, `${from} -> ${to}: holds back ${wanted.length - output.length} samples`);
    }
  });
}

test("what lies above the new Nyquist frequency does not fold back", () => {
  for (const hz of [14000, 17000, 20000]) {
    const output = resample(sine(48000, hz, 0.5), 48000, 24000).subarray(500);
    assert.ok(20 * Math.log10(rms(output) / rms(sine(48000, hz, 0.5))) < -60, `${hz} Hz leaks`);
  }
});

test("speech frequencies pass unharmed", () => {
  for (const hz of [100, 3000, 7000, 9500]) {
    const output = resample(sine(48000, hz, 0.5), 48000, 24000).subarray(500, -500);
    const decibels = 20 * Math.log10(rms(output) / (0.5 / Math.SQRT2));
    assert.ok(Math.abs(decibels) < 0.1, `${hz} Hz: ${decibels.toFixed(2)} dB`);
  }
});

test("the sizes of the blocks make no difference", () => {
  const input = sine(44100, 440, 0.3);
  const whole = resample(input, 44100, 24000, () => input.length);
  for (const blocks of [() => 1, () => 128, (turn) => 1 + ((turn * 37) % 200)]) {
    assert.deepEqual(resample(input, 44100, 24000, blocks), whole);
  }
});

test("pushing what it says it needs gives exactly what was asked for, or a little more", () => {
  for (const rate of DEVICE_RATES) {
    const resampler = new Resampler(24000, rate);
    const room = new Float32Array(4096);
    for (let n = 0; n < 200; n++) {
      const needed = resampler.needed(128);
      const got = resampler.push(new Float32Array(needed), room);
      assert.ok(got >= 128 && got <= 128 + Math.ceil(rate / 24000), `${rate} Hz: ${got}`);
    }
  }
});

test("equal rates pass every sample through at once", () => {
  const input = sine(24000, 440, 0.1);
  assert.deepEqual(resample(input, 24000, 24000), input);
});

test("a constant stays constant: the phases of the filter agree", () => {
  const output = resample(new Float32Array(44100).fill(0.25), 44100, 24000).subarray(200);
  assert.ok(output.every((sample) => Math.abs(sample - 0.25) < 1e-5));
});
