import assert from "node:assert/strict";
import { test } from "node:test";
import { failureOf, retryDelay } from "../connection.js";
import { connectionProblem, microphoneObstacle, microphoneRefused } from "../problems.js";

test("tries grow further apart, up to a bound, and are spread", () => {
  const middle = Array.from({ length: 12 }, (_, n) => retryDelay(n, 0.5));
  assert.deepEqual(middle.slice(0, 6), [0.5, 1, 2, 4, 8, 15]);
  assert.ok(middle.every((delay) => delay <= 15));
  assert.ok(retryDelay(3, 0) < retryDelay(3, 1));
  assert.ok(retryDelay(100, 1) <= 18.75);
});

const refused = { opened: false, code: 1006, reason: "" };

test("a connection that was open was lost, one that never was has a reason", () => {
  assert.equal(failureOf({ ...refused, opened: true }, null).kind, "lost");
  assert.equal(failureOf(refused, null).kind, "unreachable");
  assert.equal(failureOf(refused, { status: 426, retryAfter: null }).kind, "refused");
});

test("a full server says when to come back", () => {
  assert.deepEqual(failureOf(refused, { status: 503, retryAfter: 7 }), { kind: "full", retryAfter: 7, final: false });
  assert.deepEqual(failureOf({ opened: true, code: 1013, reason: "retry_after=12" }, null), { kind: "full", retryAfter: 12, final: false });
});

test("a normal end and a refusal are not tried again", () => {
  assert.equal(failureOf({ opened: true, code: 1000, reason: "" }, null).final, true);
  assert.equal(failureOf({ opened: true, code: 1008, reason: "key" }, null).final, true);
  assert.equal(failureOf({ opened: true, code: 1001, reason: "" }, null).final, false);
});

test("every failure is told with what happens next or what to do", () => {
  for (const kind of ["unreachable", "full", "lost", "refused"]) {
    assert.match(connectionProblem({ kind }, 3.2), /Trying again in 4 seconds/);
    assert.match(connectionProblem({ kind }, null), /Press Talk/);
  }
  assert.match(connectionProblem({ kind: "full" }, 0.4), /in a second/);
  assert.match(connectionProblem({ kind: "unreachable" }, 2), /duologue serve/);
});

test("an insecure page is told how to become secure, a secure one is not bothered", () => {
  assert.match(microphoneObstacle({ secure: false, mediaDevices: false, worklet: false }), /https.*localhost/s);
  assert.match(microphoneObstacle({ secure: true, mediaDevices: false, worklet: true }), /browser/);
  assert.equal(microphoneObstacle({ secure: true, mediaDevices: true, worklet: true }), null);
});

test("each way a microphone fails has its own advice", () => {
  const names = ["NotAllowedError", "NotFoundError", "NotReadableError", "NoOutput", "OddError"];
  assert.equal(new Set(names.map(microphoneRefused)).size, names.length);
  assert.match(microphoneRefused("NotAllowedError"), /Allow it/);
  assert.match(microphoneRefused("OddError"), /OddError/);
});
