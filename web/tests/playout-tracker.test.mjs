import assert from "node:assert/strict";
import { test } from "node:test";
import { PlayoutTracker } from "../playout-tracker.js";

test("what is heard lags behind what is rendered by the output latency", () => {
  const tracker = new PlayoutTracker();
  for (let n = 0; n <= 10; n++) tracker.rendered("a", n * 480, 5 + n * 0.02);
  assert.deepEqual(tracker.heard(5.2), { item: "a", samples: 4800 });
  assert.deepEqual(tracker.heard(5.2 - 0.15), { item: "a", samples: 1200 });
});

test("nothing is heard before the first sample", () => {
  const tracker = new PlayoutTracker();
  assert.equal(tracker.heard(1), null);
  tracker.rendered("a", 480, 5);
  assert.equal(tracker.heard(4.99), null);
});

test("one reply's position does not run into the next one's", () => {
  const tracker = new PlayoutTracker();
  tracker.rendered("a", 4800, 1);
  tracker.rendered("b", 0, 1.02);
  assert.deepEqual(tracker.heard(1.01), { item: "a", samples: 4800 });
  assert.deepEqual(tracker.heard(1.03), { item: "b", samples: 0 });
});

test("it remembers no more than the last seconds", () => {
  const tracker = new PlayoutTracker();
  for (let n = 0; n < 5000; n++) tracker.rendered("a", n, n * 0.02);
  assert.ok(tracker.points.length <= 512);
  assert.deepEqual(tracker.heard(4999 * 0.02), { item: "a", samples: 4999 });
});
