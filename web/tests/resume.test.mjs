import assert from "node:assert/strict";
import { test } from "node:test";
import { conversationOf, resuming } from "../resume.js";

test("a conversation is named in the address, beside what is there", () => {
  assert.equal(resuming("ws://host/v1/realtime", null), "ws://host/v1/realtime");
  assert.equal(resuming("ws://host/v1/realtime?model=a%2Fb", "0f"), "ws://host/v1/realtime?model=a%2Fb&duologue_resume=0f");
  assert.equal(resuming("https://host/v1/realtime/calls", "0f"), "https://host/v1/realtime/calls?duologue_resume=0f");
});

test("a server that keeps nothing gives no token, one that knows the conversation says so", () => {
  assert.deepEqual(conversationOf({ duologue: { events: false } }), { token: null, resumed: false });
  assert.deepEqual(conversationOf(undefined), { token: null, resumed: false });
  const session = { duologue: { resume_token: "0f", resumed: true, resumed_items: 4 } };
  assert.deepEqual(conversationOf(session), { token: "0f", resumed: true });
});
