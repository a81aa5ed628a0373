import assert from "node:assert/strict";
import { test } from "node:test";
import { canStop, history, initial, phase, reduce, spokenLength } from "../conversation.js";

const audio = (ms) => Buffer.alloc(ms * 48).toString("base64");

function run(events, from = initial()) {
  let state = from;
  const effects = [];
  for (const event of events) {
    const next = reduce(state, event);
    state = next.state;
    effects.push(...next.effects);
  }
  return { state, effects, sent: effects.filter((each) => each.kind === "send").map((each) => each.event) };
}

const DUOLOGUE = { type: "session.updated", session: { duologue: { events: true } } };
const OPEN = [{ type: "local.connecting" }, { type: "local.open" }, { type: "local.microphone", open: true }];
const ASKED = [
  { type: "input_audio_buffer.speech_started", audio_start_ms: 500, item_id: "q" },
  { type: "input_audio_buffer.speech_stopped", audio_end_ms: 2000, item_id: "q" },
  { type: "input_audio_buffer.committed", previous_item_id: null, item_id: "q" },
  { type: "conversation.item.added", previous_item_id: null, item: { id: "q", type: "message", role: "user", content: [{ type: "input_audio" }] } },
];
const TRANSCRIBED = { type: "conversation.item.input_audio_transcription.completed", item_id: "q", content_index: 0, transcript: "Why is the sky blue?" };
const CLAUSES = ["Because air scatters light. ", "Blue light is scattered most."];
const REPLYING = [
  { type: "response.created", response: { id: "r", status: "in_progress" } },
  { type: "response.output_item.added", response_id: "r", item: { id: "a", type: "message", role: "assistant", content: [] } },
  { type: "conversation.item.added", previous_item_id: "q", item: { id: "a", type: "message", role: "assistant", content: [] } },
  { type: "response.output_audio_transcript.delta", item_id: "a", delta: CLAUSES[0] },
  { type: "response.output_audio.delta", item_id: "a", delta: audio(2000) },
  { type: "local.started", item: "a", delay_ms: 50 },
  { type: "response.output_audio_transcript.delta", item_id: "a", delta: CLAUSES[1] },
  { type: "response.output_audio.delta", item_id: "a", delta: audio(2000) },
];
const REPLIED = [
  { type: "response.output_audio.done", item_id: "a" },
  { type: "response.output_audio_transcript.done", item_id: "a", transcript: CLAUSES.join("") },
  { type: "response.done", response: { id: "r", status: "completed" } },
];

test("the phase follows a spoken turn from listening to listening", () => {
  const phases = [];
  let state = initial();
  for (const event of [...OPEN, DUOLOGUE, ...ASKED, TRANSCRIBED, ...REPLYING, ...REPLIED, { type: "local.silent" }]) {
    state = reduce(state, event).state;
    if (phases.at(-1) !== phase(state)) phases.push(phase(state));
  }
  assert.deepEqual(phases, ["connecting", "ready", "listening", "hearing", "listening", "thinking", "speaking", "listening"]);
});

test("the server's states are told from the user's side", () => {
  const said = (server) => phase(run([...OPEN, DUOLOGUE, { type: "duologue.state", state: server }]).state);
  assert.deepEqual(["waiting_for_input", "listening", "thinking", "barged_in", "ended"].map(said), ["listening", "hearing", "thinking", "held", "ended"]);
});

test("a response that is open but heard to its end is not waited for", () => {
  const { state } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, REPLIED[0], { type: "local.silent" }]);
  assert.equal(phase(state), "listening");
});

test("sound that is still playing is speech, whatever the server has announced", () => {
  const { state } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, ...REPLIED, { type: "duologue.state", state: "waiting_for_input" }]);
  assert.equal(phase(state), "speaking");
});

test("the user's row is there while they speak and is filled in place", () => {
  const started = run([...OPEN, ASKED[0]]).state;
  assert.deepEqual(started.items.map(({ id, text, pending }) => ({ id, text, pending })), [{ id: "q", text: "", pending: true }]);
  const partial = run([{ type: "conversation.item.input_audio_transcription.delta", item_id: "q", delta: "Why is" }], started).state;
  assert.equal(partial.items[0].text, "Why is");
  const { state, effects } = run([...ASKED.slice(1), TRANSCRIBED], partial);
  assert.deepEqual(state.items.map(({ id, text, pending }) => ({ id, text, pending })), [{ id: "q", text: "Why is the sky blue?", pending: false }]);
  assert.deepEqual(effects, [{ kind: "announce", text: "You said: Why is the sky blue?" }]);
});

test("a transcript that comes after the reply has begun lands above it", () => {
  const { state } = run([...OPEN, ...ASKED, ...REPLYING, TRANSCRIBED]);
  assert.deepEqual(state.items.map((item) => item.id), ["q", "a"]);
  assert.equal(state.items[0].text, "Why is the sky blue?");
});

test("an item named as following another is put there", () => {
  const late = { type: "conversation.item.added", previous_item_id: "q", item: { id: "x", type: "message", role: "user", content: [{ type: "input_text", text: "in between" }] } };
  const { state } = run([...OPEN, ...ASKED, ...REPLYING, late]);
  assert.deepEqual(state.items.map((item) => item.id), ["q", "x", "a"]);
});

test("a turn in which nothing was said leaves no row", () => {
  const { state } = run([...OPEN, ...ASKED, { ...TRANSCRIBED, transcript: " " }]);
  assert.deepEqual(state.items, []);
});

test("a failed transcription says so in its row", () => {
  const { state } = run([...OPEN, ...ASKED, { type: "conversation.item.input_audio_transcription.failed", item_id: "q", error: { message: "The recogniser is gone." } }]);
  assert.equal(state.items[0].problem, "The recogniser is gone.");
});

test("a reply's audio is played in order and its end is passed on", () => {
  const { effects } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, ...REPLIED]);
  const sound = effects.filter((each) => ["play", "end"].includes(each.kind)).map((each) => `${each.kind} ${each.item}`);
  assert.deepEqual(sound.slice(0, 3), ["play a", "play a", "end a"]);
});

test("events under their older names mean the same", () => {
  const rename = (event) => ({ ...event, type: event.type.replace("output_audio", "audio").replace("item.added", "item.created") });
  const { state, effects } = run([...OPEN, ...ASKED, ...REPLYING.map((each) => (each.type.startsWith("response.output_item") ? each : rename(each)))]);
  assert.equal(state.items.at(-1).text, CLAUSES.join(""));
  assert.equal(effects.filter((each) => each.kind === "play").length, 2);
});

test("text turns from coming to spoken as it is heard", () => {
  const { state } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, { type: "local.heard", item: "a", ms: 2000 }]);
  const item = state.items[1];
  assert.equal(item.text.slice(0, spokenLength(state, item)).trim(), CLAUSES[0].trim());
});

test("speech over the reply holds it, and a cough lets it go on", () => {
  const cough = [
    { type: "input_audio_buffer.speech_started", item_id: "cough" },
    { type: "duologue.state", state: "barged_in" },
    { type: "duologue.playout.pause", response_id: "r" },
  ];
  const held = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, ...cough]);
  assert.equal(phase(held.state), "held");
  assert.equal(held.effects.at(-1).kind, "pause");
  const after = run(
    [
      { type: "duologue.interruption", outcome: "retracted", evidence: "silence" },
      { type: "duologue.playout.resume", response_id: "r", item_id: "a", audio_start_ms: 1200 },
      { type: "duologue.state", state: "speaking" },
    ],
    held.state,
  );
  assert.equal(phase(after.state), "speaking");
  assert.deepEqual(after.effects, [{ kind: "resume", item: "a", ms: 1200 }]);
  assert.equal(after.state.items[1].audioMs, 1200);
  assert.deepEqual(after.state.items.map((item) => item.id), ["q", "a"]);
  assert.equal(after.state.items[1].cut, null);
});

test("a real interruption drops the sound and strikes what was not heard", () => {
  const { state, effects } = run([
    ...OPEN, DUOLOGUE, ...ASKED, ...REPLYING,
    { type: "local.heard", item: "a", ms: 1200 },
    { type: "input_audio_buffer.speech_started", item_id: "q2" },
    { type: "duologue.playout.pause", response_id: "r" },
    { type: "duologue.interruption", outcome: "committed", evidence: "words" },
    { type: "duologue.playout.clear", item_id: "a", audio_end_ms: 1210 },
    { type: "conversation.item.truncated", item_id: "a", content_index: 0, audio_end_ms: 1210, duologue: { heard: "Because air scatters" } },
    { type: "response.done", response: { id: "r", status: "cancelled" } },
    { type: "duologue.state", state: "listening" },
    { type: "local.silent" },
  ]);
  assert.equal(effects.filter((each) => each.kind === "announce").length, 1);
  const item = state.items.find((each) => each.id === "a");
  assert.equal(item.text.slice(0, item.cut), "Because air scatters");
  assert.equal(spokenLength(state, item), item.cut);
  assert.equal(phase(state), "hearing");
  assert.deepEqual(effects.filter((each) => ["pause", "clear", "resume"].includes(each.kind)), [{ kind: "pause" }, { kind: "clear", item: "a" }]);
});

test("the words the server says were heard and not heard are the ones shown", () => {
  const { state } = run([
    ...OPEN, DUOLOGUE, ...ASKED, ...REPLYING,
    { type: "response.done", response: { id: "r", status: "cancelled", duologue: { heard: "Because air", unheard: "scatters light. And more." } } },
  ]);
  const item = state.items.find((each) => each.id === "a");
  assert.equal(item.text.slice(0, item.cut), "Because air");
  assert.equal(item.text.slice(item.cut), " scatters light. And more.");
});

test("a reply of which nothing was to be heard leaves no row", () => {
  const { state } = run([
    ...OPEN, DUOLOGUE, ...ASKED, ...REPLYING.slice(0, 3),
    { type: "response.done", response: { id: "r", status: "cancelled", duologue: { heard: "", unheard: "" } } },
  ]);
  assert.deepEqual(state.items.map((item) => item.id), ["q"]);
});

test("a sound that was no speech leaves no row", () => {
  const { state } = run([...OPEN, DUOLOGUE, ASKED[0], ASKED[1], { type: "duologue.input.discarded", item_id: "q" }]);
  assert.deepEqual(state.items, []);
});

test("a conversation that is about to end says so", () => {
  const { state } = run([...OPEN, { type: "duologue.idle_warning", ends_in_ms: 29500 }]);
  assert.equal(state.notice.level, "info");
  assert.match(state.notice.text, /30 seconds/);
});

test("audio of a reply that was cut off is not played any more", () => {
  const { effects } = run([
    ...OPEN, DUOLOGUE, ...ASKED, ...REPLYING,
    { type: "duologue.playout.clear", item_id: "a", audio_end_ms: 500 },
    { type: "response.output_audio.delta", item_id: "a", delta: audio(100) },
  ]);
  assert.equal(effects.filter((each) => each.kind === "play").length, 2);
});

test("stopping by hand drops the sound and cancels; a server that keeps count is told no more", () => {
  const { sent, effects } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, { type: "local.heard", item: "a", ms: 900 }, { type: "local.stop" }]);
  assert.deepEqual(sent, [{ type: "response.cancel" }]);
  assert.ok(effects.some((each) => each.kind === "clear"));
});

test("stopping by hand tells other servers what was heard", () => {
  const { state, sent, effects } = run([...OPEN, ...ASKED, ...REPLYING, { type: "local.heard", item: "a", ms: 900.4 }, { type: "local.stop" }]);
  assert.deepEqual(sent, [
    { type: "response.cancel" },
    { type: "conversation.item.truncate", item_id: "a", content_index: 0, audio_end_ms: 900 },
  ]);
  assert.ok(effects.some((each) => each.kind === "clear"));
  assert.ok(state.items[1].cut > 0 && state.items[1].cut < state.items[1].text.length);
  assert.equal(canStop({ ...state, response: null }), false);
});

test("stopping a reply that the server has finished sending cancels nothing", () => {
  const { sent } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, ...REPLIED, { type: "local.heard", item: "a", ms: 3000 }, { type: "local.stop" }]);
  assert.deepEqual(sent.map((each) => each.type), ["conversation.item.truncate"]);
});

test("there is nothing to stop while listening", () => {
  const { state, effects } = run([...OPEN, { type: "local.stop" }]);
  assert.equal(canStop(state), false);
  assert.deepEqual(effects, []);
});

test("a server without duologue events is interrupted by this side", () => {
  const { sent, effects } = run([...OPEN, ...ASKED, ...REPLYING, { type: "local.heard", item: "a", ms: 700 }, { type: "input_audio_buffer.speech_started", item_id: "q2" }]);
  assert.deepEqual(sent.map((each) => each.type), ["response.cancel", "conversation.item.truncate"]);
  assert.ok(effects.some((each) => each.kind === "clear"));
});

test("a typed line is shown at once, sent, and answered", () => {
  const { state, sent } = run([...OPEN, { type: "local.typed", id: "item_1", text: "Hello" }]);
  assert.deepEqual(sent.map((each) => each.type), ["conversation.item.create", "response.create"]);
  assert.equal(sent[0].item.content[0].text, "Hello");
  const echoed = run([{ type: "conversation.item.added", previous_item_id: null, item: sent[0].item }], state).state;
  assert.deepEqual(echoed.items.map((item) => item.text), ["Hello"]);
});

test("typing during a reply stops it first", () => {
  const { sent } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, { type: "local.heard", item: "a", ms: 500 }, { type: "local.typed", id: "t", text: "Stop that" }]);
  assert.deepEqual(sent.map((each) => each.type), ["response.cancel", "conversation.item.create", "response.create"]);
});

test("a reply without sound is shown whole", () => {
  const { state } = run([...OPEN, ...REPLYING.slice(0, 2), { type: "response.output_text.delta", item_id: "a", delta: "In writing." }]);
  assert.equal(spokenLength(state, state.items[0]), "In writing.".length);
});

test("a reply whose text comes only at its end is shown when it is done", () => {
  const quiet = REPLYING.filter((each) => each.type !== "response.output_audio_transcript.delta");
  const { state } = run([...OPEN, DUOLOGUE, ...ASKED, ...quiet, ...REPLIED]);
  assert.equal(spokenLength(state, state.items[1]), CLAUSES.join("").length);
});

test("a lost connection cuts the running reply where it was heard and keeps the rest", () => {
  const { state, effects } = run([...OPEN, DUOLOGUE, ...ASKED, TRANSCRIBED, ...REPLYING, { type: "local.heard", item: "a", ms: 2000 }, { type: "local.waiting", text: "The connection was lost." }]);
  assert.equal(phase(state), "waiting");
  assert.equal(state.notice.text, "The connection was lost.");
  assert.ok(effects.some((each) => each.kind === "clear"));
  const again = history(state);
  assert.deepEqual(again.map(({ role, content }) => [role, content[0].type, content[0].text]), [
    ["user", "input_text", "Why is the sky blue?"],
    ["assistant", "output_text", CLAUSES[0].trim()],
  ]);
});

test("a reply that had been heard to its end is whole when the connection is lost", () => {
  const { state } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING, REPLIED[0], { type: "local.silent" }, { type: "local.waiting", text: "lost" }]);
  assert.equal(state.items[1].cut, null);
});

test("the items given to a new session are not shown twice when it confirms them", () => {
  const { state } = run([...OPEN, ...ASKED, TRANSCRIBED, { type: "local.waiting", text: "lost" }, { type: "local.open" }]);
  const [item] = history(state);
  const confirmed = run([{ type: "conversation.item.added", previous_item_id: null, item }, { type: "conversation.item.done", previous_item_id: null, item }], state).state;
  assert.equal(confirmed.items.length, 1);
});

test("hanging up drops the half-heard row and leaves no error behind", () => {
  const { state } = run([...OPEN, ASKED[0], { type: "local.closed" }]);
  assert.deepEqual(state.items, []);
  assert.equal(state.notice, null);
  assert.equal(phase(state), "off");
});

test("a failed reply says why", () => {
  const { state } = run([...OPEN, REPLYING[0], { type: "response.done", response: { id: "r", status: "failed", status_details: { error: { message: "No such model." } } } }]);
  assert.equal(state.notice.text, "The reply failed: No such model.");
});

test("an error is shown, but not that a reply was over before it was stopped", () => {
  const shown = run([{ type: "error", error: { code: "voice_not_found", message: "There is no voice x." } }]).state;
  assert.equal(shown.notice.text, "There is no voice x.");
  assert.equal(run([{ type: "error", error: { code: "response_cancel_not_active", message: "-" } }]).state.notice, null);
});

const METRICS = { type: "duologue.turn.metrics", turn: 1, steps: [{ name: "end_of_turn", ms: 250 }, { name: "sent", ms: 600 }], voice_to_voice_ms: 600 };

test("this side's wait is added to the server's, whichever is known first", () => {
  for (const order of [[METRICS, ...REPLYING.slice(4)], [...REPLYING.slice(4), METRICS]]) {
    const { state } = run([...OPEN, DUOLOGUE, ...ASKED, ...REPLYING.slice(0, 4), ...order]);
    assert.equal(state.turns.length, 1);
    assert.equal(state.turns[0].total, 650);
    assert.deepEqual(state.turns[0].steps.map((step) => step.name), ["end_of_turn", "sent", "played"]);
  }
});

test("the last turns' times are kept, not all of them", () => {
  const many = Array.from({ length: 100 }, (_, n) => ({ ...METRICS, turn: n + 1 }));
  const { state } = run(many);
  assert.equal(state.turns.length, 24);
  assert.equal(state.turns.at(-1).turn, 100);
});

test("events nobody knows change nothing", () => {
  const state = initial();
  for (const event of [{ type: "rate_limits.updated" }, { type: "something.new" }, {}]) {
    assert.equal(reduce(state, event).state, state);
  }
});

test("no order of events breaks the reducer", () => {
  const pool = [
    ...OPEN, DUOLOGUE, ...ASKED, TRANSCRIBED, ...REPLYING, ...REPLIED, METRICS,
    { type: "duologue.playout.pause" }, { type: "duologue.playout.resume" }, { type: "duologue.playout.clear", item_id: "a", audio_end_ms: 3 },
    { type: "conversation.item.truncated", item_id: "a", audio_end_ms: 10 }, { type: "duologue.state", state: "barged_in" },
    { type: "duologue.interruption", outcome: "retracted" }, { type: "local.stop" }, { type: "local.silent" }, { type: "local.waiting", text: "x" },
    { type: "local.closed" }, { type: "local.heard", item: "a", ms: 5 }, { type: "conversation.item.deleted", item_id: "a" },
    { type: "local.typed", id: "t", text: "x" }, { type: "error" }, { type: "response.done" },
  ];
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  let state = initial();
  for (let n = 0; n < 20000; n++) {
    state = reduce(state, pool[Math.floor(random() * pool.length)]).state;
    for (const item of state.items) {
      assert.ok(item.cut === null || (item.cut >= 0 && item.cut <= item.text.length), JSON.stringify(item));
      assert.ok(spokenLength(state, item) >= 0);
    }
    assert.equal(new Set(state.items.map((item) => item.id)).size, state.items.length);
    phase(state);
    history(state);
    if (n % 50 === 0) state = initial();
  }
});

test("a conversation that the server keeps is shown as recorded until the recording stops", () => {
  const created = (recording) => ({ type: "session.created", session: { duologue: { events: false, recording } } });
  assert.equal(run([...OPEN, created(false)]).state.recorded, false);
  assert.equal(run([...OPEN, { type: "session.created", session: {} }]).state.recorded, false);
  const { state } = run([...OPEN, created(true), DUOLOGUE]);
  assert.equal(state.recorded, true);
  assert.equal(run([{ type: "duologue.recording", active: false, reason: "full" }], state).state.recorded, false);
  assert.equal(run([created(false)], state).state.recorded, false);
});
