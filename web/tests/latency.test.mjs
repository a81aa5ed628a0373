import assert from "node:assert/strict";
import { test } from "node:test";
import { bars, describe, milliseconds, picture, span, sparkline } from "../latency.js";

const TURN = {
  steps: [
    { name: "transcript", ms: 180 },
    { name: "end_of_turn", ms: 150 },
    { name: "first_clause", ms: 420 },
    { name: "sent", ms: 500 },
    { name: "played", ms: 560 },
  ],
  total: 560,
};

test("each bar begins where the one before it ended, whatever order the steps came in", () => {
  const drawn = bars(TURN.steps);
  assert.deepEqual(drawn.map((bar) => bar.name), ["end_of_turn", "transcript", "first_clause", "sent", "played"]);
  drawn.forEach((bar, index) => assert.equal(bar.from, index === 0 ? 0 : drawn[index - 1].to));
  assert.equal(drawn.reduce((sum, { from, to }) => sum + to - from, 0), 560);
});

test("a step reached before the end of speech takes no time", () => {
  assert.deepEqual(bars([{ name: "transcript", ms: -40 }]).map(({ from, to }) => [from, to]), [[0, 0]]);
});

test("the picture has a labelled bar for each step, inside its box", () => {
  const { width, height, body } = picture(TURN);
  assert.equal((body.match(/<rect/g) ?? []).length, 5);
  for (const [, x, w] of body.matchAll(/<rect[^>]* x="([\d.]+)"[^>]* width="([\d.]+)"/g)) {
    assert.ok(Number(x) + Number(w) <= width);
  }
  assert.equal(height, 5 * 22);
  assert.match(body, />Turn over</);
});

test("a name from the server cannot become markup", () => {
  assert.doesNotMatch(picture({ steps: [{ name: '<img src=x">', ms: 1 }] }).body, /<img/);
});

test("the picture is told in words too", () => {
  assert.equal(describe(TURN), "Answered in 560 ms: turn over 150 ms, transcript 30 ms, first words 240 ms, sent 80 ms, heard 60 ms.");
});

test("a typed turn is not said to have had a last word", () => {
  assert.match(span(TURN), /last word/);
  assert.match(span({ steps: [{ name: "sent", ms: 100 }] }), /last line/);
});

test("times are written short", () => {
  assert.deepEqual([0.4, 640, 999, 1240, 12000].map(milliseconds), ["0 ms", "640 ms", "1.00 s", "1.24 s", "12 s"]);
});

test("the line of past turns stays in its box and needs two points", () => {
  assert.equal(sparkline([500], 320, 40), "");
  const points = sparkline([500, 900, 700], 320, 40).split(" ").map((point) => point.split(",").map(Number));
  assert.equal(points.length, 3);
  assert.ok(points.every(([x, y]) => x >= 0 && x <= 320 && y >= 0 && y <= 40));
  assert.ok(points[1][1] < points[0][1], "longer is higher");
  assert.doesNotMatch(sparkline([500, 500], 320, 40), /NaN/);
});
