import assert from "node:assert/strict";
import { test } from "node:test";
import { base64Ms, decode, encode, loudness, toInt16 } from "../pcm.js";

test("samples survive the way to the wire and back", () => {
  const samples = Int16Array.of(0, 1, -1, 32767, -32768, 258, -259);
  assert.deepEqual(decode(encode(samples)), samples);
});

test("the wire has the low byte first", () => {
  assert.equal(encode(Int16Array.of(0x0102)), Buffer.from([0x02, 0x01]).toString("base64"));
});

test("a long piece does not overflow the stack", () => {
  const samples = new Int16Array(24000 * 20).fill(1234);
  assert.equal(decode(encode(samples)).length, samples.length);
});

test("what is louder than full scale is clipped, not wrapped", () => {
  assert.deepEqual([2, -2, 1, -1, 0].map(toInt16), [32767, -32768, 32767, -32767, 0]);
});

test("the length of a piece is known without decoding it", () => {
  for (const ms of [1, 20, 21, 22, 300]) {
    assert.ok(Math.abs(base64Ms(encode(new Int16Array(ms * 24))) - ms) < 1e-9);
  }
});

test("loudness runs from silence to full speech", () => {
  assert.equal(loudness(0), 0);
  assert.equal(loudness(0.0001), 0);
  assert.ok(loudness(0.1) > 0.4 && loudness(0.1) < 0.6);
  assert.equal(loudness(1), 1);
});
