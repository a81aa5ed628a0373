import assert from "node:assert/strict";
import { test } from "node:test";
import { initial, phase, reduce } from "../conversation.js";
import { whyNotJoined } from "../room.js";
import { Transcription, isTranscribed } from "../transcription.js";

const of = (segment, final) => ({ "lk.segment_id": segment, "lk.transcription_final": String(final) });

function told(streams) {
  const transcription = new Transcription();
  return streams.flatMap(({ id, attributes, ofUser, pieces, after = attributes }) => {
    const stream = transcription.stream(id, attributes, ofUser);
    return [...pieces.flatMap((piece) => stream.piece(piece)), ...stream.end(after)];
  });
}

const shown = (events) =>
  events.reduce((state, event) => reduce(state, event).state, { ...initial(), connection: "open" }).items.map(({ role, text, pending }) => [role, text, pending]);

test("the agent's words grow, and the end of their stream makes them final", () => {
  const events = told([{ id: "s1", attributes: of("item_1", false), after: of("item_1", true), ofUser: false, pieces: ["Good ", "morning."] }]);
  assert.deepEqual(events.map(({ type }) => type.split(".").at(-1)), ["delta", "delta", "done"]);
  assert.deepEqual(shown(events), [["assistant", "Good morning.", false]]);
});

test("a later stream of the same segment takes the place of what the agent was going to say", () => {
  const events = told([
    { id: "s1", attributes: of("item_1", false), after: of("item_1", false), ofUser: false, pieces: ["Once upon a time there was"] },
    { id: "s2", attributes: of("item_1", true), ofUser: false, pieces: ["Once ", "upon"] },
  ]);
  assert.deepEqual(shown(events), [["assistant", "Once upon", false]]);
});

test("the user's words come whole each time, and once final they stay", () => {
  const user = (text, final) => ({ id: text, attributes: of("item_2", final), ofUser: true, pieces: [text] });
  assert.deepEqual(shown(told([user("what", false), user("what time", false)])), [["user", "what time", false]]);
  const events = told([user("what", false), user("What time is it?", true), user("what time", false)]);
  assert.deepEqual(shown(events), [["user", "What time is it?", false]]);
  assert.deepEqual(shown(told([user("hm", false), user("", true)])), [], "nothing was said after all");
});

test("a stream that names no segment is one of its own", () => {
  assert.equal(told([{ id: "s9", attributes: {}, ofUser: false, pieces: ["Hi"] }])[0].item_id, "s9");
});

test("what the text streams tell is not needed a second time, the rest of the events is", () => {
  assert.equal(isTranscribed({ type: "response.output_audio_transcript.delta" }), true);
  assert.equal(isTranscribed({ type: "conversation.item.input_audio_transcription.failed" }), false);
  assert.equal(isTranscribed({ type: "response.done" }), false);
});

test("an agent's state is shown until the server says more", () => {
  const open = { ...initial(), connection: "open", microphone: true };
  const speaking = reduce(open, { type: "local.agent", state: "speaking" }).state;
  assert.equal(phase(speaking), "speaking");
  assert.equal(phase(reduce(open, { type: "local.agent", state: "thinking" }).state), "thinking");
  assert.equal(phase(reduce(speaking, { type: "duologue.state", state: "waiting_for_input" }).state), "listening");
});

test("why a room was not joined is said in words", () => {
  const reasons = { NotAllowed: 0, ServerUnreachable: 1, Timeout: 5, WebSocket: 6, ServiceNotFound: 7 };
  const why = (reason) => whyNotJoined({ reason, message: "other" }, { ConnectionErrorReason: reasons });
  assert.match(why(0), /refused/);
  assert.match(why(1), /reached/);
  assert.match(why(5), /in time/);
  assert.equal(why(2), "other");
});
