import assert from "node:assert/strict";
import { test } from "node:test";
import { wayOf } from "../call.js";
import { initial, reduce } from "../conversation.js";
import { PlayoutClock } from "../playout-clock.js";
import { fellBack, wayRefused } from "../problems.js";
import { addressOf, waysOf } from "../settings.js";

test("what is heard is behind what was sent, stands while it is held, and ends where the reply does", () => {
  const clock = new PlayoutClock();
  clock.begin("item_a", 1000);
  assert.equal(clock.sent(1500), 500);
  assert.equal(clock.heard(1500, 80), 420);
  assert.equal(clock.heard(1020, 80), 0);
  clock.pause(1600);
  assert.equal(clock.sent(5000), 600);
  assert.equal(clock.heard(5000, 80), 520);
  clock.resume(400, 5000);
  assert.equal(clock.sent(5100), 500);
  clock.end(5100);
  assert.equal(clock.sent(6000), 500);
  assert.equal(clock.heard(5150, 80), 470);
  assert.equal(clock.heard(6000, 80), 500);
  clock.clear();
  assert.equal(clock.item, null);
});

test("the way of the sound is what the jitter buffer held of late, half the round trip, and the device", () => {
  const at = (jitterBufferEmittedCount, jitterBufferDelay) => ({ jitterBufferEmittedCount, jitterBufferDelay });
  assert.equal(wayOf(at(0, 0), at(48000, 48000 * 0.04), 20, 30), 80);
  assert.equal(wayOf(at(100, 5), at(100, 5), 20, 30), null, "nothing was played");
  assert.equal(wayOf(null, null, 20, 30), null);
  assert.equal(wayOf(at(0, 0), at(1, 60), 0, 0), 1000);
});

test("a call's reply begins to sound when the server says so, and its words keep pace with what was sent", () => {
  const step = (state, event) => reduce(state, event);
  let { state } = step(initial(), { type: "response.created", response: { id: "resp_1" } });
  ({ state } = step(state, { type: "response.output_item.added", response_id: "resp_1", item: { id: "item_1", type: "message", role: "assistant" } }));
  const begun = step(state, { type: "output_audio_buffer.started", response_id: "resp_1" });
  assert.deepEqual(begun.effects, [{ kind: "begin", item: "item_1" }]);
  assert.deepEqual(step(state, { type: "output_audio_buffer.started", response_id: "resp_0" }).effects, []);
  ({ state } = step(begun.state, { type: "local.sent", item: "item_1", ms: 240 }));
  ({ state } = step(state, { type: "local.sent", item: "item_1", ms: 120 }));
  assert.equal(state.items.find(({ id }) => id === "item_1").audioMs, 240);
  assert.deepEqual(step(state, { type: "output_audio_buffer.stopped", response_id: "resp_1" }).effects, [{ kind: "finish" }]);
});

test("calls are made beside the page, with the model that was chosen", () => {
  assert.equal(addressOf("webrtc", "https://a.example/duo/#x", { model: "" }), "https://a.example/duo/v1/realtime/calls");
  assert.equal(addressOf("webrtc", "http://localhost:8080/?transport=webrtc", { model: "a b" }), "http://localhost:8080/v1/realtime/calls?model=a%20b");
  assert.equal(addressOf("livekit", "https://a.example/duo/", { model: "a" }), "https://a.example/duo/v1/livekit/token");
});

test("the server's best way is tried first, and a WebSocket last", () => {
  const all = { sound: true, calls: true };
  assert.deepEqual(waysOf(["livekit", "webrtc", "websocket"], null, all), ["livekit", "webrtc", "websocket"]);
  assert.deepEqual(waysOf(null, null, all), ["webrtc", "websocket"]);
  assert.deepEqual(waysOf(["websocket"], null, all), ["websocket"]);
  assert.deepEqual(waysOf(["webrtc", "websocket"], "livekit", all), ["livekit"]);
  assert.deepEqual(waysOf(["webrtc", "websocket"], "carrier pigeon", all), ["webrtc", "websocket"]);
  assert.deepEqual(waysOf(["livekit", "webrtc", "websocket"], null, { sound: true, calls: false }), ["websocket"]);
  assert.deepEqual(waysOf(["webrtc", "websocket"], "webrtc", { sound: false, calls: true }), ["websocket"]);
});

test("what did not work is told, and what is used for it", () => {
  const one = fellBack("webrtc", new Map([["livekit", "nobody answered"]]));
  assert.equal(one, "Talking with this server itself over WebRTC: a LiveKit room could not be used (nobody answered).");
  const two = fellBack("websocket", new Map([["livekit", "a"], ["webrtc", "b"]]));
  assert.match(two, /over a WebSocket.*room could not be used \(a\), and a WebRTC call could not be made \(b\)\./);
  assert.match(wayRefused("livekit", "why"), /^A LiveKit room.*\(why\).*without \?transport=livekit\.$/);
});
