// Puts the state on the page. Reads nothing back from it and decides nothing.

import { phase, spokenLength } from "./conversation.js";
import { describe, milliseconds, picture, span, sparkline } from "./latency.js";

const byId = (id) => document.getElementById(id);

// phase -> the state in words, what to do about it, what the button is called
const WORDS = {
  off: ["Press to talk", "", "Talk"],
  asking: ["Microphone", "allow it in the browser’s question", "Waiting for the microphone"],
  connecting: ["Connecting", "", "Connecting"],
  waiting: ["Not connected", "press to try now", "Try again now"],
  ready: ["Press to talk", "or go on typing", "Talk"],
  listening: ["Listening", "", "Listening"],
  muted: ["Muted", "you are not heard", "Muted"],
  hearing: ["Hearing you", "", "Answer now"],
  thinking: ["Thinking", "", "Stop the reply"],
  speaking: ["Speaking", "press to stop, or just talk", "Stop the reply"],
  held: ["Holding", "you spoke over the reply", "Stop the reply"],
  ended: ["Ended", "press to start again", "Talk"],
};

const UNHEARD_SHOWN = 120; // characters

/** Phases in which the big button has nothing to do. */
export const IDLE = new Set(["asking", "connecting", "listening", "muted"]);

export class View {
  constructor() {
    this.rows = new Map(); // item id -> {element, item, spoken}
    this.shown = {};
  }

  render(state) {
    this.#controls(state);
    this.#notice(state.notice);
    this.#items(state);
    if (this.shown.turns !== state.turns) this.#latency(state.turns);
    this.shown.turns = state.turns;
  }

  announce(text) {
    byId("announcer").textContent = text;
  }

  #controls(state) {
    const now = phase(state);
    const live = state.connection !== "off";
    document.body.toggleAttribute("data-listening", state.connection === "open" && state.microphone);
    if (this.shown.phase !== now) {
      this.shown.phase = now;
      const [word, hint, name] = WORDS[now];
      byId("dock").dataset.phase = now;
      byId("state").querySelector("strong").textContent = word;
      byId("state").querySelector("span").textContent = hint;
      byId("talk-name").textContent = name;
      byId("talk").setAttribute("aria-disabled", String(IDLE.has(now)));
    }
    byId("hang-up").disabled = !live;
    byId("recorded").hidden = !(live && state.recorded);
    byId("mute").disabled = !state.microphone;
    const muted = state.microphone && state.muted;
    if (byId("mute").getAttribute("aria-pressed") !== String(muted)) {
      byId("mute").setAttribute("aria-pressed", String(muted));
      byId("mute").querySelector("use").setAttribute("href", muted ? "#i-mic-off" : "#i-mic");
    }
  }

  #notice(notice) {
    if (this.shown.notice === notice) return;
    this.shown.notice = notice;
    const box = byId("notice");
    box.hidden = notice === null;
    if (notice === null) return;
    box.dataset.level = notice.level;
    const text = box.querySelector("p");
    if (text.textContent !== notice.text) text.textContent = notice.text;
  }

  #items(state) {
    const list = byId("items");
    const log = byId("transcript");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    byId("empty").hidden = state.items.length > 0;
    const present = new Set(state.items.map((item) => item.id));
    for (const [id, row] of this.rows) {
      if (present.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    let before = null;
    let changed = false;
    for (const item of state.items) {
      let row = this.rows.get(item.id);
      if (row === undefined) {
        row = { element: rowFor(item), item: null, spoken: -1 };
        this.rows.set(item.id, row);
      }
      const place = before === null ? list.firstChild : before.nextSibling;
      if (place !== row.element) list.insertBefore(row.element, place);
      before = row.element;
      const spoken = spokenLength(state, item);
      if (row.item === item && row.spoken === spoken) continue;
      fill(row.element, item, spoken);
      row.item = item;
      row.spoken = spoken;
      changed = true;
    }
    if (changed && atEnd) log.scrollTop = log.scrollHeight;
  }

  #latency(turns) {
    const last = turns.at(-1);
    const panel = byId("latency");
    panel.querySelector(".none").hidden = last !== undefined;
    panel.querySelector(".some").hidden = last === undefined;
    if (last === undefined) return;
    panel.querySelector(".total b").textContent = milliseconds(last.total);
    panel.querySelector(".total span").textContent = span(last);
    const { width, height, body } = picture(last);
    const bars = byId("bars");
    bars.setAttribute("viewBox", `0 0 ${width} ${height}`);
    bars.setAttribute("aria-label", describe(last));
    bars.innerHTML = body;
    const totals = turns.map((turn) => turn.total);
    const history = byId("history");
    history.hidden = totals.length < 2;
    if (history.hidden) return;
    const points = sparkline(totals, 320, 40);
    history.querySelector("polyline").setAttribute("points", points);
    const [x, y] = points.split(" ").at(-1).split(",");
    const dot = history.querySelector("circle");
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    const range = `${milliseconds(Math.min(...totals))} to ${milliseconds(Math.max(...totals))}`;
    history.querySelector("figcaption").textContent = `Last ${totals.length} replies: ${range}`;
    history.querySelector("svg").setAttribute("aria-label", `The last ${totals.length} replies took ${range}.`);
  }
}

function rowFor(item) {
  const row = document.createElement("li");
  row.className = `item ${item.role}`;
  row.dataset.id = item.id;
  const who = document.createElement("div");
  who.className = "who";
  who.textContent = item.role === "user" ? "You" : "Duologue";
  const said = document.createElement("div");
  said.className = "said";
  row.append(who, said);
  return row;
}

function fill(row, item, spoken) {
  const said = row.querySelector(".said");
  const parts = [];
  if (item.role === "user" && item.text === "" && item.problem === null) {
    parts.push(waiting("Being transcribed"));
  } else if (item.role === "assistant" && item.text === "" && !item.done) {
    parts.push(waiting("Thinking"));
  } else {
    parts.push(item.text.slice(0, spoken));
    const rest = shortened(item.text.slice(spoken), item.cut !== null);
    if (rest.trim() !== "") {
      if (item.cut !== null) parts.push(...struck(rest), part("small", "note", "Cut off here; the rest was not heard."));
      else parts.push(part("span", "coming", rest));
    } else if (item.cut !== null) {
      parts.push(part("small", "note", "Stopped here."));
    }
  }
  if (item.problem !== null) parts.push(part("small", "note problem", item.problem));
  said.replaceChildren(...parts);
}

// Of a long text that was never heard, its beginning is enough.
function shortened(text, cut) {
  if (!cut || text.length <= UNHEARD_SHOWN) return text;
  return text.slice(0, UNHEARD_SHOWN).replace(/\s+\S*$/, "") + " …";
}

function struck(text) {
  const [, before, words, after] = /^(\s*)(.*?)(\s*)$/s.exec(text);
  const cut = part("del", "cut", "");
  cut.append(part("span", "hidden", " Not heard: "), words);
  return [before, cut, after];
}

function waiting(name) {
  const dots = part("span", "wait", "");
  dots.setAttribute("role", "img");
  dots.setAttribute("aria-label", name);
  dots.append(...[1, 2, 3].map(() => document.createElement("i")));
  return dots;
}

function part(tag, className, text) {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}
