// Which part of a reply's text has been heard.
//
// Text comes a clause at a time, before its audio (docs/protocol.md), so the amount of audio
// received when a piece of text arrives is where that piece begins. Between two such marks the
// voice is taken to be even; after the last one its usual pace stands in for audio to come.

const USUAL_MS_PER_CHARACTER = 65;

/** The part of an item that this module keeps. */
export function spokenItem() {
  return { text: "", marks: [], audioMs: 0, audioDone: false };
}

/** Adds a piece of text to an item. */
export function addText(item, delta) {
  const last = item.marks.at(-1);
  const fresh = last === undefined || last.ms < item.audioMs;
  return {
    text: item.text + delta,
    marks: fresh ? [...item.marks, { at: item.text.length, ms: item.audioMs }] : item.marks,
  };
}

/** How many characters of the text have been begun after `ms` of its audio; whole words. */
export function heardLength(item, ms) {
  const { text, marks, audioMs, audioDone } = item;
  if (ms <= 0 || marks.length === 0) return 0;
  if (audioDone && ms >= audioMs - 1) return text.length;
  let index = marks.length - 1;
  while (index > 0 && marks[index].ms >= ms) index--;
  const from = marks[index];
  const to = marks[index + 1] ?? end(item, from);
  if (to.ms <= from.ms) return endOfWord(text, from.at);
  const part = Math.max(0, Math.min(1, (ms - from.ms) / (to.ms - from.ms)));
  return endOfWord(text, Math.floor(from.at + part * (to.at - from.at)));
}

function end({ text, audioMs, audioDone }, from) {
  const expected = from.ms + (text.length - from.at) * USUAL_MS_PER_CHARACTER;
  return { at: text.length, ms: audioDone ? audioMs : Math.max(audioMs, expected) };
}

/** Where to cut an item off: after the words the server says were heard, else by the clock. */
export function cutAt(item, ms, heard) {
  if (typeof heard === "string") {
    const length = prefixLength(item.text, heard);
    if (length !== null) return length;
  }
  return heardLength(item, ms ?? 0);
}

// The length of the part of `text` that reads as `heard`, white space aside; null if it is none.
function prefixLength(text, heard) {
  let at = 0;
  for (const character of heard.replace(/\s+/g, "")) {
    while (at < text.length && /\s/.test(text[at])) at++;
    if (!text.startsWith(character, at)) return null;
    at += character.length;
  }
  return at;
}

// A word counts from its first character on; between words nothing is added.
function endOfWord(text, at) {
  if (at === 0 || /\s/.test(text[at - 1])) return at;
  const rest = text.slice(at).search(/\s/);
  return rest < 0 ? text.length : at + rest;
}
