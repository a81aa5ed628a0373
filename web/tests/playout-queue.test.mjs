import assert from "node:assert/strict";
import { test } from "node:test";
import { PlayoutQueue } from "../playout-queue.js";

const RATE = 24000;
const MS = RATE / 1000;
const tone = (ms) => Int16Array.from({ length: ms * MS }, (_, n) => 16000 * Math.sin((2 * Math.PI * 300 * n) / RATE));

function read(queue, ms) {
  const out = new Float32Array(ms * MS);
  queue.read(out);
  return out;
}

function told(queue) {
  const events = queue.events.map(({ type, item, samples }) => `${type} ${item} ${samples / MS}`);
  queue.events = [];
  return events;
}

const loud = (samples) => samples.some((sample) => Math.abs(sample) > 0.01);
const steepest = (samples) => samples.reduce((most, sample, n) => (n === 0 ? 0 : Math.max(most, Math.abs(sample - samples[n - 1]))), 0);
// The tone itself moves this much from one sample to the next.
const SMOOTH = 0.5 * ((2 * Math.PI * 300) / RATE) * 1.3;

function playing(item = "a", ms = 400) {
  const queue = new PlayoutQueue(RATE);
  queue.push(item, tone(ms));
  return queue;
}

test("sound begins once the cushion is filled", () => {
  const queue = new PlayoutQueue(RATE);
  queue.push("a", tone(20));
  assert.ok(!loud(read(queue, 10)));
  queue.push("a", tone(20));
  assert.ok(loud(read(queue, 10)));
  assert.deepEqual(told(queue), ["started a 0"]);
});

test("a reply shorter than the cushion is played all the same", () => {
  const ended = new PlayoutQueue(RATE);
  ended.push("a", tone(10));
  ended.end("a");
  read(ended, 20);
  assert.deepEqual(told(ended), ["started a 0", "drained a 10"]);

  const open = new PlayoutQueue(RATE);
  open.push("a", tone(10));
  read(open, 100);
  assert.deepEqual(told(open), ["started a 0", "underrun a 10"]);
});

test("samples go out unchanged and are counted", () => {
  const queue = playing("a", 100);
  queue.end("a");
  const out = read(queue, 100);
  const wanted = tone(100);
  assert.ok(out.every((sample, n) => Math.abs(sample - wanted[n] / 32768) < 1e-6));
  assert.equal(queue.played, 100 * MS);
  read(queue, 1);
  assert.deepEqual(told(queue), ["started a 0", "drained a 100"]);
});

test("a pause falls silent within its fade, keeps the rest, and goes on at the next sample", () => {
  const queue = playing();
  const before = read(queue, 50);
  queue.pause();
  const fade = read(queue, 20);
  assert.ok(!loud(fade.subarray(8 * MS)));
  assert.ok(steepest([...before, ...fade]) < SMOOTH);
  assert.ok(!loud(read(queue, 500)));
  const held = queue.played;
  assert.ok(held <= 56 * MS, `played ${held / MS} ms`);
  queue.resume();
  const after = read(queue, 50);
  assert.ok(loud(after) && steepest(after) < SMOOTH);
  assert.equal(queue.played, held + 50 * MS);
  assert.deepEqual(told(queue).map((each) => each.split(" ")[0]), ["started", "paused"]);
});

test("going on at an earlier position plays the cut word again and counts from there", () => {
  const queue = playing();
  read(queue, 200);
  queue.pause();
  read(queue, 20);
  queue.resume("a", 150 * MS);
  assert.equal(queue.buffered, 0);
  assert.equal(queue.played, 150 * MS);
  queue.push("a", tone(100));
  const again = read(queue, 50);
  assert.ok(loud(again) && steepest(again) < SMOOTH);
  assert.equal(queue.played, 200 * MS);
});

test("going on at a later position keeps what lies before it", () => {
  const queue = new PlayoutQueue(RATE);
  for (let n = 0; n < 10; n++) queue.push("a", tone(40));
  read(queue, 50);
  queue.pause();
  read(queue, 20);
  queue.resume("a", 300 * MS);
  assert.equal(queue.played + queue.buffered, 300 * MS);
});

test("an item that goes on after its end was announced is not over until it is announced again", () => {
  const queue = playing("a", 200);
  queue.end("a");
  read(queue, 150);
  queue.pause();
  read(queue, 20);
  queue.resume("a", 100 * MS);
  queue.push("a", tone(100));
  read(queue, 120);
  assert.ok(!told(queue).some((each) => each.startsWith("drained")));
  queue.end("a");
  assert.deepEqual(told(queue).map((each) => each.slice(0, 9)), ["drained a"]);
});

test("a pause before the first sample holds it back", () => {
  const queue = playing();
  queue.pause();
  assert.ok(!loud(read(queue, 100)));
  queue.resume();
  assert.ok(loud(read(queue, 20)));
});

test("a pause that is taken back within the fade does not click", () => {
  const queue = playing();
  const out = [...read(queue, 50)];
  queue.pause();
  out.push(...read(queue, 2));
  queue.resume();
  out.push(...read(queue, 50));
  assert.ok(steepest(out) < SMOOTH);
  assert.deepEqual(told(queue), ["started a 0"]);
});

test("clearing drops what is buffered after a fade, and says how much was played", () => {
  const queue = playing();
  const out = [...read(queue, 50)];
  queue.clear("a");
  out.push(...read(queue, 20));
  assert.ok(steepest(out) < SMOOTH);
  assert.equal(queue.buffered, 0);
  const [, cleared] = told(queue);
  assert.match(cleared, /^cleared a 5[0-6](\.|$)/);
});

test("clearing while paused drops at once and ends the pause", () => {
  const queue = playing();
  read(queue, 50);
  queue.pause();
  read(queue, 50);
  queue.clear("a");
  assert.equal(queue.buffered, 0);
  queue.push("b", tone(100));
  assert.ok(loud(read(queue, 20)));
  assert.equal(queue.item, "b");
});

test("audio of a cleared item that is still on its way is not played", () => {
  const queue = playing();
  read(queue, 50);
  queue.clear("a");
  read(queue, 20);
  assert.equal(queue.push("a", tone(100)), false);
  assert.ok(!loud(read(queue, 100)));
});

test("clearing one item leaves the next one to play", () => {
  const queue = playing("a", 200);
  queue.push("b", tone(200));
  read(queue, 50);
  queue.clear("a");
  read(queue, 30);
  assert.equal(queue.item, "b");
  assert.deepEqual(told(queue).map((each) => each.slice(0, 9)), ["started a", "cleared a", "started b"]);
});

test("clearing as the last sample runs out still drops and goes on", () => {
  const queue = playing("a", 50);
  read(queue, 49);
  queue.clear("a");
  read(queue, 20);
  queue.push("b", tone(100));
  read(queue, 20);
  assert.equal(queue.item, "b");
});

test("clearing everything drops every item", () => {
  const queue = playing("a", 200);
  queue.push("b", tone(200));
  read(queue, 50);
  queue.clear();
  read(queue, 20);
  assert.equal(queue.buffered, 0);
  assert.equal(queue.push("b", tone(20)), false);
});

test("running dry in mid-reply is counted, waits for more, and fades back in", () => {
  const queue = playing("a", 60);
  const cushion = queue.cushion;
  const out = [...read(queue, 100)];
  assert.equal(queue.underruns, 1);
  assert.ok(queue.cushion > cushion);
  queue.push("a", tone(200));
  out.push(...read(queue, 50));
  assert.ok(loud(out.slice(-10 * MS)));
  assert.ok(steepest(out) < 0.06);
  assert.equal(queue.played, 110 * MS);
});

test("the cushion never grows past its bound", () => {
  const queue = new PlayoutQueue(RATE);
  for (let n = 0; n < 30; n++) {
    queue.push("a", tone(250));
    read(queue, 500);
  }
  assert.equal(queue.underruns, 30);
  assert.equal(queue.cushion, 200 * MS);
});

test("one reply after another is counted on its own", () => {
  const queue = playing("a", 100);
  queue.end("a");
  queue.push("b", tone(100));
  read(queue, 150);
  assert.equal(queue.item, "b");
  assert.equal(queue.played, 50 * MS);
  assert.deepEqual(told(queue), ["started a 0", "drained a 100", "started b 0"]);
});

test("a server that sends without end cannot fill the memory", () => {
  const queue = new PlayoutQueue(RATE);
  const minute = new Int16Array(60 * RATE);
  const taken = [1, 2, 3, 4, 5].map(() => queue.push("a", minute));
  assert.deepEqual(taken, [true, true, true, false, false]);
  assert.equal(queue.overflows, 2);
});

test("the end of an item nobody knows is of no consequence", () => {
  const queue = new PlayoutQueue(RATE);
  queue.end("ghost");
  assert.equal(queue.ended.size, 0);
});
