// What the conversation looks like, from what the server and the speaker said.
//
// One pure function: `reduce(state, event)` gives the next state and the things to do about it
// (`effects`: play, hold or drop sound, send an event). Nothing here knows of sockets, sound
// cards, documents or clocks. Events are the server's own (docs/protocol.md) and, named
// `local.*`, what happened on this side.

import { base64Ms } from "./pcm.js";
import { addText, cutAt, heardLength, spokenItem } from "./heard.js";

/** The state before anything has happened. */
export function initial() {
  return {
    connection: "off", // off | asking (for the microphone) | connecting | open | waiting (to try again)
    microphone: false, // open and sending
    session: null,
    recorded: false, // the server keeps this conversation
    duologue: false, // the server speaks the duologue.* events
    serverState: null,
    agent: null, // what an agent in a LiveKit room does, where the server says no more
    userSpeaking: false,
    muted: false,
    held: false, // sound held because the user spoke over it
    playing: null, // id of the item that is audible
    heard: {}, // item id -> ms heard, as the speaker reports
    response: null, // {id, item} of the response in progress
    delay: null, // ms from the response's first audio received to its first sample played
    measured: false, // the server has sent this response's metrics
    items: [], // oldest first
    turns: [], // metrics, oldest first
    notice: null, // {level: "info" | "error", text}
  };
}

/**
 * One word for what is going on, the truest first: sound that is heard beats what is announced.
 * @returns {"off"|"asking"|"connecting"|"waiting"|"held"|"speaking"|"hearing"|"thinking"|"ended"|"ready"|"muted"|"listening"}
 */
export function phase(state) {
  if (state.connection !== "open") return state.connection;
  if (state.held || state.serverState === "barged_in") return "held";
  if (state.playing !== null || (state.serverState === null && state.agent === "speaking")) return "speaking";
  if (state.userSpeaking || state.serverState === "listening") return "hearing";
  if (replyAwaited(state) || (state.serverState ?? state.agent) === "thinking") return "thinking";
  if (state.serverState === "ended") return "ended";
  if (!state.microphone) return "ready";
  return state.muted ? "muted" : "listening";
}

// A response stays open until its last sound was heard; by then nothing of it is awaited.
function replyAwaited({ response, items }) {
  return response !== null && items.find((item) => item.id === response.item)?.audioDone !== true;
}

/** Whether there is a reply to stop. */
export function canStop(state) {
  return ["held", "speaking", "thinking"].includes(phase(state));
}

/** The items to give to a new session so that it goes on where the last one broke off. */
export function history(state, most = 40) {
  return state.items
    .filter((item) => !item.pending && heardText(item).trim() !== "")
    .slice(-most)
    .map((item) => ({
      id: item.id,
      type: "message",
      role: item.role,
      content: [{ type: item.role === "user" ? "input_text" : "output_text", text: heardText(item).trim() }],
    }));
}

function heardText(item) {
  return item.cut === null ? item.text : item.text.slice(0, item.cut);
}

/** @returns {{state: object, effects: object[]}} */
export function reduce(state, event) {
  const handler = HANDLERS[GA_NAMES[event.type] ?? event.type];
  if (handler === undefined) return { state, effects: [] };
  const effects = [];
  const next = handler(state, event, effects);
  return { state: next, effects };
}

// Names that events had before the API was final.
const GA_NAMES = {
  "response.audio.delta": "response.output_audio.delta",
  "response.audio.done": "response.output_audio.done",
  "response.audio_transcript.delta": "response.output_audio_transcript.delta",
  "response.audio_transcript.done": "response.output_audio_transcript.done",
  "response.text.delta": "response.output_text.delta",
  "response.text.done": "response.output_text.done",
  "conversation.item.created": "conversation.item.added",
};

const HANDLERS = {
  "session.created": (state, { session }) => ({ ...state, session, recorded: session?.duologue?.recording === true }),
  "session.updated": (state, { session }) => ({
    ...state,
    session,
    duologue: session?.duologue?.events === true,
  }),

  // The user's side.
  "input_audio_buffer.speech_started": (state, { item_id }, effects) => {
    let next = { ...state, userSpeaking: true };
    if (!state.duologue && state.playing !== null) next = cutReply(next, effects);
    if (item_id === undefined || find(state, item_id) !== undefined) return next;
    return insert(next, { ...blank(item_id, "user"), pending: true });
  },
  "input_audio_buffer.speech_stopped": (state) => ({ ...state, userSpeaking: false }),
  "input_audio_buffer.committed": (state, { item_id, previous_item_id }) => {
    const next = { ...state, userSpeaking: false };
    if (find(next, item_id) !== undefined) return update(next, item_id, { committed: true });
    return insert(next, { ...blank(item_id, "user"), pending: true, committed: true }, previous_item_id);
  },
  "input_audio_buffer.cleared": (state) => dropUncommitted({ ...state, userSpeaking: false }),
  "conversation.item.input_audio_transcription.delta": (state, { item_id, delta }) => {
    const next = ensure(state, item_id, "user");
    return update(next, item_id, { text: find(next, item_id).text + delta });
  },
  "conversation.item.input_audio_transcription.completed": (state, { item_id, transcript }, effects) => {
    const text = (transcript ?? "").trim();
    if (text === "") return remove(state, item_id);
    effects.push({ kind: "announce", text: `You said: ${text}` });
    return update(ensure(state, item_id, "user"), item_id, { text, pending: false, committed: true });
  },
  "conversation.item.input_audio_transcription.failed": (state, { item_id, error }) =>
    update(ensure(state, item_id, "user"), item_id, {
      pending: false,
      committed: true,
      problem: error?.message ?? "This could not be transcribed.",
    }),

  // Items of either side.
  "conversation.item.added": (state, event) => itemAdded(state, event),
  "conversation.item.done": (state, event) => itemAdded(state, event),
  "conversation.item.deleted": (state, { item_id }) => remove(state, item_id),
  "conversation.item.truncated": (state, { item_id, audio_end_ms, duologue }, effects) => {
    const item = find(state, item_id);
    if (item === undefined) return state;
    const cut = cutAt(item, audio_end_ms, duologue?.heard);
    const heard = { ...state.heard, [item_id]: audio_end_ms };
    if (!item.announced) {
      effects.push({ kind: "announce", text: `The reply was cut off after: ${item.text.slice(0, cut)}` });
    }
    return update({ ...state, heard }, item_id, { cut, done: true, announced: true });
  },

  // The reply.
  "response.created": (state, { response }) => ({
    ...state,
    response: { id: response?.id ?? null, item: null },
    delay: null,
    measured: false,
    notice: state.notice?.level === "error" || state.notice?.keep ? state.notice : null,
  }),
  "response.output_item.added": (state, { item, response_id }) => {
    if (item?.type !== "message") return state;
    const next = ensure(state, item.id, "assistant");
    const response = { ...(next.response ?? { id: response_id }), item: item.id };
    return { ...next, response };
  },
  "response.output_audio_transcript.delta": (state, { item_id, delta }) => replyText(state, item_id, delta),
  "response.output_text.delta": (state, { item_id, delta }) => replyText(state, item_id, delta, true),
  "response.output_audio_transcript.done": (state, { item_id, transcript }) =>
    wholeText(state, item_id, transcript),
  "response.output_text.done": (state, { item_id, text }) => wholeText(state, item_id, text),
  "response.output_audio.delta": (state, { item_id, delta }, effects) => {
    const next = ensure(state, item_id, "assistant");
    const item = find(next, item_id);
    if (item.cut !== null) return next; // cut off: nothing of it is to be heard any more
    effects.push({ kind: "play", item: item_id, audio: delta });
    return update(next, item_id, { audioMs: item.audioMs + base64Ms(delta) });
  },
  "response.output_audio.done": (state, { item_id }, effects) => {
    effects.push({ kind: "end", item: item_id });
    if (find(state, item_id) === undefined) return state;
    return update(state, item_id, { audioDone: true });
  },
  // A call's sound comes by itself; when it begins and ceases is told.
  "output_audio_buffer.started": (state, { response_id }, effects) => {
    const { response } = state;
    if (response === null || response.item === null || response.id !== response_id) return state;
    effects.push({ kind: "begin", item: response.item });
    return state;
  },
  "output_audio_buffer.stopped": (state, _event, effects) => {
    effects.push({ kind: "finish" });
    return state;
  },
  "response.done": (state, { response }, effects) => {
    const over = state.response?.item ?? null;
    let next = { ...state, response: null };
    const item = over === null ? undefined : find(next, over);
    if (item !== undefined) {
      effects.push({ kind: "end", item: over });
      const changes = { done: true, audioDone: true };
      if (response?.status === "incomplete") changes.problem = "The reply was too long and stops here.";
      if (!item.announced && item.text !== "" && response?.status === "completed") {
        effects.push({ kind: "announce", text: `Duologue: ${item.text}` });
        changes.announced = true;
      }
      next = update(next, over, changes);
      if (response?.status === "cancelled") next = cancelled(next, over, response.duologue);
    }
    if (response?.status === "failed") {
      const why = response.status_details?.error?.message ?? "the server gave no reason";
      return { ...next, notice: { level: "error", text: `The reply failed: ${why}` } };
    }
    return next;
  },

  error: (state, { error }) => {
    // A reply that was over by the time we stopped it is no error to the user.
    if (error?.code === "response_cancel_not_active") return state;
    return { ...state, notice: { level: "error", text: error?.message ?? "The server reported an error." } };
  },

  // Duologue's own.
  "duologue.state": (state, event) => {
    const held = event.state === "barged_in" ? state.held : state.held && event.state === "speaking";
    return { ...state, serverState: event.state, held };
  },
  "duologue.playout.pause": (state, _event, effects) => {
    effects.push({ kind: "pause" });
    return { ...state, held: true };
  },
  "duologue.playout.resume": (state, { item_id, audio_start_ms }, effects) => {
    effects.push({ kind: "resume", item: item_id ?? null, ms: audio_start_ms ?? null });
    const next = { ...state, held: false };
    if (find(next, item_id) === undefined || typeof audio_start_ms !== "number") return next;
    return update(next, item_id, { audioMs: audio_start_ms, audioDone: false });
  },
  "duologue.playout.clear": (state, { item_id, audio_end_ms }, effects) => {
    effects.push({ kind: "clear", item: item_id ?? null });
    const next = { ...state, held: false };
    const item = find(next, item_id);
    if (item === undefined || item.cut !== null) return next;
    // The server counts what it sent; what was heard of it is known on this side.
    const ms = Math.min(audio_end_ms ?? 0, state.heard[item_id] ?? Infinity);
    return update(next, item_id, { cut: cutAt(item, ms), done: true });
  },
  "duologue.interruption": (state, { outcome }) => {
    const next = { ...state, held: false };
    return outcome === "retracted" ? dropUncommitted({ ...next, userSpeaking: false }) : next;
  },
  "duologue.input.discarded": (state, { item_id }) => {
    const next = { ...state, userSpeaking: false };
    return find(next, item_id)?.committed === false ? remove(next, item_id) : next;
  },
  "duologue.idle_warning": (state, { ends_in_ms }) => ({
    ...state,
    notice: { level: "info", text: `Nobody has spoken for a while: the conversation ends in ${Math.ceil(ends_in_ms / 1000)} seconds.` },
  }),
  // It has stopped because it had to; the conversation goes on.
  "duologue.recording": (state, { active }) => ({ ...state, recorded: active === true }),
  "duologue.turn.metrics": (state, { turn, steps, voice_to_voice_ms }) =>
    addPlayed({
      ...state,
      measured: true,
      turns: [...state.turns, { turn, steps: steps ?? [], total: voice_to_voice_ms }].slice(-24),
    }),

  // This side.
  "local.asking": (state) => (state.connection === "off" ? { ...state, connection: "asking", notice: null } : state),
  "local.microphone": (state, { open }) => ({ ...state, microphone: open, muted: open && state.muted }),
  "local.connecting": (state) => ({ ...state, connection: "connecting" }),
  "local.agent": (state, { state: agent }) => ({ ...state, agent }),
  // A transcript as it stands now; it may change.
  "local.partial": (state, { item, text }) => {
    const known = find(state, item);
    if (known?.committed && !known.pending) return state; // its final words are there
    return update(ensure(state, item, "user"), item, { text });
  },
  "local.open": (state) => ({ ...state, connection: "open", notice: null }),
  "local.waiting": (state, { text }, effects) => lost(state, "waiting", text, effects),
  "local.closed": (state, { text }, effects) => lost(state, "off", text ?? null, effects),
  "local.answer": (state, _event, effects) => {
    effects.push(send({ type: "input_audio_buffer.commit" }), send({ type: "response.create" }));
    return { ...state, userSpeaking: false };
  },
  "local.muted": (state, { muted }) => ({ ...state, muted }),
  // `keep`: it holds for the whole conversation.
  "local.notice": (state, { level, text, keep }) => ({ ...state, notice: text ? { level, text, ...(keep && { keep }) } : null }),
  "local.typed": (state, { id, text }, effects) => {
    // A typed line is meant as an interruption; there is no hypothesis to weigh.
    const next = canStop(state) ? cutReply(state, effects) : state;
    effects.push(
      send({
        type: "conversation.item.create",
        item: { id, type: "message", role: "user", content: [{ type: "input_text", text }] },
      }),
      send({ type: "response.create" }),
    );
    return insert(next, { ...blank(id, "user"), text, typed: true, committed: true });
  },
  "local.stop": (state, _event, effects) => (canStop(state) ? cutReply(state, effects) : state),
  "local.started": (state, { item, delay_ms }) => addPlayed({ ...state, playing: item, delay: delay_ms ?? null }),
  "local.silent": (state) => ({ ...state, playing: null }),
  "local.sent": (state, { item, ms }) => {
    const known = find(state, item);
    return known === undefined || known.audioMs >= ms ? state : update(state, item, { audioMs: ms });
  },
  "local.heard": (state, { item, ms }) => {
    if (!((state.heard[item] ?? -1) < ms)) return state;
    return { ...state, heard: { ...state.heard, [item]: ms } };
  },
};

function itemAdded(state, { item, previous_item_id }) {
  if (item?.type !== "message" || (item.role !== "user" && item.role !== "assistant")) return state;
  const text = (item.content ?? []).map((part) => part.text ?? part.transcript ?? "").join("");
  const known = find(state, item.id);
  if (known === undefined) {
    const pending = item.role === "user" && text === "";
    const written = item.role === "assistant" && text !== ""; // text that came without sound
    const fresh = { ...blank(item.id, item.role), text, pending, written, done: written, committed: true };
    return insert(state, fresh, previous_item_id);
  }
  if (known.text === "" && text !== "") {
    return update(state, item.id, { text, pending: false, committed: true });
  }
  return update(state, item.id, { committed: true });
}

// Ends the reply here and now: what was heard of it is known on this side.
function cutReply(state, effects) {
  const id = state.playing ?? state.response?.item ?? null;
  effects.push({ kind: "clear", item: null });
  if (state.response !== null) effects.push(send({ type: "response.cancel" }));
  let next = { ...state, held: false, playing: null };
  const item = id === null ? undefined : find(state, id);
  if (item !== undefined && item.cut === null) {
    const ms = Math.round(state.heard[id] ?? 0);
    // A server that keeps count of what was heard needs no telling, unless it took the reply for over.
    if (item.audioMs > 0 && !(state.duologue && state.response !== null)) {
      const audio_end_ms = Math.min(ms, Math.floor(item.audioMs));
      effects.push(send({ type: "conversation.item.truncate", item_id: id, content_index: 0, audio_end_ms }));
    }
    next = update(next, id, { cut: cutAt(item, ms), done: true });
  }
  return next;
}

// What the server knows of a reply that was cut off: the words that were heard and those that were not.
function cancelled(state, id, known) {
  const item = find(state, id);
  if (typeof known?.heard === "string") {
    const heard = known.heard.trim();
    const unheard = (known.unheard ?? "").trim();
    if (heard === "" && unheard === "") return remove(state, id);
    return update(state, id, { text: `${heard} ${unheard}`.trim(), cut: heard.length });
  }
  return item.text.trim() === "" ? remove(state, id) : state;
}

function lost(state, connection, text, effects) {
  effects.push({ kind: "clear", item: null });
  let next = dropUncommitted({
    ...state,
    connection,
    serverState: null,
    agent: null,
    userSpeaking: false,
    held: false,
    playing: null,
    response: null,
    notice: text ? { level: "error", text } : connection === "off" ? null : state.notice,
  });
  for (const item of next.items) {
    if (item.role !== "assistant" || item.done) continue;
    const whole = item.audioDone && state.playing !== item.id;
    const cut = item.cut ?? (whole ? null : cutAt(item, state.heard[item.id] ?? 0));
    next = update(next, item.id, { cut, done: true });
  }
  return next;
}

function replyText(state, id, delta, written = false) {
  const next = ensure(state, id, "assistant");
  const item = find(next, id);
  return update(next, id, { ...addText(item, delta), written });
}

function wholeText(state, id, text) {
  const item = find(state, id);
  if (item === undefined || typeof text !== "string" || item.cut !== null) return state;
  return update(state, id, { text });
}

// What this side adds to the wait: it may be known before the server's part or after it.
function addPlayed(state) {
  const last = state.turns.at(-1);
  if (state.delay === null || !state.measured || last === undefined) return state;
  const total = last.total + state.delay;
  const steps = [...last.steps, { name: "played", ms: total }];
  return { ...state, delay: null, measured: false, turns: [...state.turns.slice(0, -1), { ...last, steps, total }] };
}

/** How much of a reply's text to show as spoken. */
export function spokenLength(state, item) {
  if (item.role !== "assistant" || item.written) return item.text.length;
  if (item.cut !== null) return item.cut;
  if (item.done && item.marks.length === 0) return item.text.length; // nothing to keep pace with
  return heardLength(item, state.heard[item.id] ?? 0);
}

function blank(id, role) {
  return {
    ...spokenItem(),
    id,
    role,
    pending: false, // a transcript is still to come
    committed: role === "assistant",
    typed: false,
    written: false, // text only: there is no sound to keep pace with
    done: false,
    cut: null, // how many characters were heard, when the rest was not
    problem: null,
    announced: false,
  };
}

function find(state, id) {
  return state.items.find((item) => item.id === id);
}

function update(state, id, changes) {
  return { ...state, items: state.items.map((item) => (item.id === id ? { ...item, ...changes } : item)) };
}

function remove(state, id) {
  return { ...state, items: state.items.filter((item) => item.id !== id) };
}

function ensure(state, id, role) {
  return find(state, id) === undefined ? insert(state, blank(id, role)) : state;
}

function insert(state, item, after) {
  if (find(state, item.id) !== undefined) return state;
  const at = after ? state.items.findIndex((each) => each.id === after) : -1;
  const items = [...state.items];
  items.splice(at < 0 ? items.length : at + 1, 0, item);
  return { ...state, items };
}

function dropUncommitted(state) {
  return { ...state, items: state.items.filter((item) => !item.pending || item.committed) };
}

function send(event) {
  return { kind: "send", event };
}
