// The page: hands what happens to the conversation's reducer and carries out what it answers.

import { Audio } from "./audio.js";
import { Call } from "./call.js";
import { Connection } from "./connection.js";
import { canStop, history, initial, phase, reduce } from "./conversation.js";
import { isKey, keyIn, storedKey, useKey, withKey } from "./key.js";
import { Levels } from "./levels.js";
import { encode, loudness } from "./pcm.js";
import { GOES_ON, KEY_ASKED, KEY_REFUSED, MICROPHONE_LOST, NO_KEY, connectionProblem, fellBack, microphoneObstacle, microphoneRefused, wayRefused } from "./problems.js";
import { conversationOf } from "./resume.js";
import { RoomCall } from "./room.js";
import { DEFAULTS, addressOf, appliesAtOnce, choices, sessionUpdate, settle, voicesFor, waysOf } from "./settings.js";
import { View } from "./view.js";

const STORED = "duologue.settings";
const REPORT_MS = 100;
const CREATED_MS = 1000;

const byId = (id) => document.getElementById(id);
const view = new View();
const levels = new Levels(byId("levels"));

let state = initial();
let settings = stored();
let offered = choices(null);
let drawing = false;
let firstAudio = { item: null, time: 0 }; // when the reply's first audio arrived
let reported = { item: null, ms: -1 };
let loudest = 0; // of either voice, for the ring around the button
let wakeLock = null;

function dispatch(event) {
  const { state: next, effects } = reduce(state, event);
  state = next;
  for (const effect of effects) carryOut(effect);
  draw();
}

function carryOut(effect) {
  switch (effect.kind) {
    case "play":
      if (firstAudio.item !== effect.item) firstAudio = { item: effect.item, time: performance.now() };
      audio.play(effect.item, effect.audio);
      break;
    case "begin":
      audio.remote?.begin(effect.item);
      break;
    case "finish":
      audio.remote?.finish();
      break;
    case "resume":
      audio.resume(effect.item, effect.ms);
      break;
    case "send":
      connection.send(effect.event);
      break;
    case "announce":
      view.announce(effect.text);
      break;
    default:
      audio.command(effect.kind, effect.item);
  }
}

// Sound

const audio = new Audio({
  piece(samples, rms) {
    const level = state.muted ? 0 : loudness(rms);
    levels.add("user", level);
    if (phase(state) !== "speaking") loudest = Math.max(loudest, level);
    if (connection === socket) connection.send({ type: "input_audio_buffer.append", audio: encode(samples) });
  },
  level(rms) {
    const level = loudness(rms);
    levels.add("reply", level);
    if (phase(state) === "speaking") loudest = Math.max(loudest, level);
    document.body.dataset.replyLevel = level.toFixed(3);
  },
  playing({ type, item, ms }) {
    if (type === "started" && connection !== socket) {
      dispatch({ type: "local.started", item, delay_ms: audio.remote?.delay });
    } else if (type === "started") {
      const waited = performance.now() - firstAudio.time + audio.latency() * 1000;
      dispatch({ type: "local.started", item, delay_ms: firstAudio.item === item ? waited : undefined });
    } else if (type === "drained" || type === "cleared") {
      if (item === state.playing) dispatch({ type: "local.silent" });
    }
    // Held or dropped: what was handed to the speaker will have been heard when this arrives.
    if (type === "paused" || type === "cleared") report(item, ms);
  },
  microphoneLost() {
    dispatch({ type: "local.microphone", open: false });
    dispatch({ type: "local.notice", level: "error", text: MICROPHONE_LOST });
  },
});

function report(item, ms) {
  if (item === null || (item === reported.item && ms <= reported.ms)) return;
  reported = { item, ms };
  document.body.dataset.playedMs = String(Math.round(ms));
  dispatch({ type: "local.heard", item, ms });
  // Of a call the server knows as much as we do: when it sent what, and how long that takes.
  if (!state.duologue || connection !== socket) return;
  connection.send({ type: "duologue.playout", item_id: item, content_index: 0, audio_end_ms: Math.round(ms) });
}

function reportNow() {
  const heard = audio.heard();
  if (heard !== null) report(heard.item, heard.ms);
}

setInterval(reportNow, REPORT_MS);

// Connection

// ?transport=livekit, webrtc or websocket takes that one and no other.
const forced = new URLSearchParams(location.search).get("transport");
const failed = new Map(); // ways that did not work, and why
let offeredWays = null; // as the server has them
let way = null;
let toldWay = 0;

// A conversation is begun when the way is open and the server has said whether it knows it already.
let begun = { open: false, session: null, timer: null };

function notBegun() {
  clearTimeout(begun.timer);
  begun = { open: false, session: null, timer: null };
}

function begin() {
  if (!begun.open || begun.timer === null) return;
  const { resumed } = conversationOf(begun.session);
  notBegun();
  if (resumed) dispatch({ type: "local.notice", level: "info", text: GOES_ON });
  else for (const item of history(state)) connection.send({ type: "conversation.item.create", item });
  if (waitingText !== null) type(waitingText);
}

function useToken(token) {
  for (const each of [socket, call]) each.token = token;
}

const handlers = {
  connecting() {
    notBegun();
    dispatch({ type: "local.connecting" });
  },
  open() {
    dispatch({ type: "local.open" });
    connection.send(sessionUpdate(settings, { sound: soundPossible() }));
    if (failed.size > 0) dispatch({ type: "local.notice", level: "info", text: fellBack(way, failed), keep: true });
    begun.open = true;
    // In a room the agent may have said it before anybody listened.
    begun.timer = setTimeout(begin, begun.session === null ? CREATED_MS : 0);
    if (offered.voice.length === 0) loadChoices();
  },
  event(event) {
    const sent = event.type === "response.output_audio_transcript.delta" ? (audio.remote?.sent() ?? null) : null;
    if (sent !== null) dispatch({ type: "local.sent", ...sent });
    dispatch(event);
    if (event.type === "session.created") {
      useToken(conversationOf(event.session).token);
      begun.session = event.session;
      begin();
    }
  },
  sound: (stream) => audio.attach(stream),
  way(ms) {
    if (audio.remote !== null) audio.remote.delay = ms;
    if (Math.abs(ms - toldWay) < 10) return;
    toldWay = ms;
    connection.send({ type: "duologue.output_delay", delay_ms: Math.round(ms) });
  },
  agent(doing) {
    document.body.dataset.agent = doing;
    dispatch({ type: "local.agent", state: doing });
  },
  unavailable(why) {
    console.warn(`No conversation over ${way}: ${why}`);
    audio.detach();
    if (forced === way) {
      dispatch({ type: "local.closed", text: wayRefused(way, why) });
      quiet();
      return;
    }
    failed.set(way, why);
    connect();
  },
  waiting: (failure, seconds) => dispatch({ type: "local.waiting", text: connectionProblem(failure, seconds) }),
  closed(failure) {
    dispatch({ type: "local.closed", text: connectionProblem(failure, null) });
    quiet();
    if (failure.kind === "locked") lock(true);
  },
};

const socket = new Connection(handlers);
const call = new Call(handlers);
const room = new RoomCall(handlers);
let connection = socket;

function connect() {
  connection.close();
  audio.detach();
  const possible = { sound: soundPossible(), calls: "RTCPeerConnection" in window };
  way = waysOf(offeredWays, forced, possible).find((each) => !failed.has(each)) ?? "websocket";
  connection = { livekit: room, webrtc: call, websocket: socket }[way];
  document.body.dataset.transport = way;
  toldWay = 0;
  connection.outputMs = audio.latency() * 1000;
  connection.open(addressOf(way, document.baseURI, settings));
}

async function loadWays() {
  try {
    const answer = await fetch("v1/realtime/transports", { headers: withKey() });
    lock(answer.status === 401);
    if (answer.ok) offeredWays = (await answer.json()).transports;
    else if (answer.status === 401) dispatch({ type: "local.notice", level: "error", text: hasKey ? KEY_REFUSED : KEY_ASKED });
    else if (answer.status === 403) dispatch({ type: "local.notice", level: "error", text: (await answer.json()).error.message });
  } catch {
    // The page says so when a conversation is begun.
  }
}

// The key

let locked = false;
let hasKey = false;

function takeKey(key) {
  hasKey = key !== null;
  useKey(key);
}

function lock(now) {
  locked = now;
  byId("key-form").hidden = !now;
}

function arrive() {
  const { key, rest } = keyIn(location.href);
  if (key !== null) window.history.replaceState(null, "", rest);
  takeKey(key ?? storedKey());
}

async function enterKey() {
  const key = byId("key").value.trim();
  if (!isKey(key)) {
    dispatch({ type: "local.notice", level: "error", text: NO_KEY });
    return;
  }
  takeKey(key);
  waysKnown = loadWays();
  await waysKnown;
  if (locked) return;
  byId("key").value = "";
  dispatch({ type: "local.notice" });
  loadChoices();
}

// What the user does

async function talk() {
  if (state.connection === "off") dispatch({ type: "local.asking" });
  const obstacle = microphoneObstacle({
    secure: isSecureContext,
    mediaDevices: Boolean(navigator.mediaDevices?.getUserMedia),
    worklet: "AudioWorkletNode" in window,
  });
  let problem = obstacle;
  if (obstacle === null) {
    try {
      await audio.open();
      await audio.openMicrophone();
    } catch (error) {
      console.warn(error);
      problem = microphoneRefused(error.name);
    }
  }
  if (state.connection === "off") {
    audio.closeMicrophone(); // hung up while the browser was asking
    return;
  }
  if (problem !== null) {
    if (state.connection === "asking") dispatch({ type: "local.closed" });
    dispatch({ type: "local.notice", level: "error", text: problem });
    return;
  }
  audio.mute(state.muted);
  const track = audio.microphone.stream.getAudioTracks()[0];
  for (const each of [call, room]) each.microphone(track);
  dispatch({ type: "local.microphone", open: true });
  await waysKnown;
  if (locked) {
    quiet();
    dispatch({ type: "local.closed", text: hasKey ? KEY_REFUSED : KEY_ASKED });
    return;
  }
  if (state.connection === "asking") connect();
  stayAwake(true);
}

function hangUp() {
  useToken(null);
  connection.close();
  audio.detach();
  quiet();
  dispatch({ type: "local.closed" });
}

function quiet() {
  for (const each of [call, room]) each.microphone(null);
  audio.closeMicrophone();
  dispatch({ type: "local.microphone", open: false });
  stayAwake(false);
}

function stop() {
  reportNow();
  dispatch({ type: "local.stop" });
}

function pressed() {
  const now = phase(state);
  if (now === "off" || now === "ready") talk();
  else if (now === "ended") {
    hangUp();
    talk();
  } else if (now === "waiting") connect();
  else if (now === "hearing") dispatch({ type: "local.answer" });
  else if (canStop(state)) stop();
}

function mute() {
  if (!state.microphone) return;
  audio.mute(!state.muted);
  room.mute(!state.muted);
  dispatch({ type: "local.muted", muted: !state.muted });
}

let waitingText = null; // typed before there was a connection

function type(text) {
  waitingText = null;
  byId("text").value = "";
  reportNow();
  dispatch({ type: "local.typed", id: newId(), text });
}

async function submit() {
  const text = byId("text").value.trim();
  if (text === "") return;
  if (soundPossible()) await audio.open().catch((error) => console.warn(error));
  if (state.connection === "open") {
    type(text);
    return;
  }
  waitingText = text;
  await waysKnown;
  if (locked) {
    dispatch({ type: "local.notice", level: "error", text: hasKey ? KEY_REFUSED : KEY_ASKED });
    return;
  }
  if (state.connection === "off" || state.connection === "waiting") connect();
}

function soundPossible() {
  return isSecureContext && "AudioWorkletNode" in window;
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return "item_" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Keeps a phone's screen on while a conversation runs.
async function stayAwake(on) {
  try {
    await wakeLock?.release();
    wakeLock = on ? await navigator.wakeLock?.request("screen") : null;
  } catch {
    wakeLock = null; // a low battery may refuse it; nothing depends on it
  }
}

// A call that is left is not one that was lost: its place is free at once.
addEventListener("pagehide", () => connection.close());

byId("talk").addEventListener("click", pressed);
byId("hang-up").addEventListener("click", hangUp);
byId("mute").addEventListener("click", mute);
byId("notice-close").addEventListener("click", () => dispatch({ type: "local.notice" }));
byId("typing").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  enterKey();
});
byId("panel-toggle").addEventListener("click", () => showPanel(!byId("panel").classList.contains("open")));

function showPanel(open) {
  byId("panel").classList.toggle("open", open);
  byId("panel-toggle").setAttribute("aria-expanded", String(open));
  byId("panel-toggle").querySelector("use").setAttribute("href", open ? "#i-close" : "#i-gear");
}

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  const field = event.target.closest?.("input, textarea, select, button, a, summary");
  if (event.key === "Escape") {
    if (canStop(state)) stop();
    else showPanel(false);
  } else if (field !== null && field !== undefined && field.tagName !== "BUTTON") {
    return;
  } else if (event.key === "m" || event.key === "M") {
    mute();
  } else if (event.key === " " && !field && !event.repeat) {
    event.preventDefault();
    pressed();
  }
});

// Settings

function stored() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(STORED) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

async function loadChoices() {
  let listing = null;
  try {
    const answer = await fetch("v1/models", { headers: withKey() });
    if (answer.ok) listing = await answer.json();
  } catch {
    return; // the page says so when a conversation is begun
  }
  const names = new Intl.DisplayNames(undefined, { type: "language" });
  offered = choices(listing, (code) => names.of(code));
  settings = settle(settings, offered);
  showSettings();
}

function showSettings() {
  for (const label of document.querySelectorAll("[data-choice]")) {
    const key = label.dataset.choice;
    const list = key === "voice" ? voicesFor(offered.voice, settings.language) : offered[key];
    label.hidden = offered[key].length < 2;
    const standard = list.find((each) => each.standard);
    const first = key === "language" ? "Detected as you speak" : standard ? `${standard.name} (standard)` : "Standard";
    const options = list.filter((each) => each !== standard).map((each) => new Option(each.name, each.id));
    label.querySelector("select").replaceChildren(new Option(first, ""), ...options);
    label.querySelector("select").value = settings[key] === standard?.id ? "" : settings[key];
  }
  const instructions = document.querySelector("[name=instructions]");
  if (document.activeElement !== instructions) instructions.value = settings.instructions;
}

byId("settings").addEventListener("change", ({ target }) => {
  const before = settings;
  settings = settle({ ...settings, [target.name]: target.value }, offered);
  try {
    localStorage.setItem(STORED, JSON.stringify(settings));
  } catch {
    // Private windows may refuse: the choice then lasts as long as the page.
  }
  showSettings();
  const hint = byId("applied");
  if (state.connection !== "open") {
    hint.textContent = "";
  } else if (appliesAtOnce(before, settings)) {
    connection.send(sessionUpdate(settings, { sound: soundPossible() }));
    hint.textContent = "Used from the next reply on.";
  } else {
    useToken(null);
    dispatch({ type: "local.closed" });
    connect();
    hint.textContent = "A new session was begun for this; the conversation is carried over.";
  }
});

// Drawing: text when something changed, levels while there is something to hear.

function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    view.render(state);
  });
}

let ringLevel = 0;
function frame(time) {
  const sounding = state.microphone || state.playing !== null;
  if (sounding || ringLevel > 0.01) {
    levels.tick(time, state.held);
    ringLevel = Math.max(loudest, ringLevel * 0.86);
    loudest = 0;
    byId("talk").style.setProperty("--level", ringLevel.toFixed(3));
  }
  requestAnimationFrame(frame);
}

requestAnimationFrame(frame);
draw();
arrive();
let waysKnown = loadWays();
loadChoices();
