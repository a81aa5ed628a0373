// What the user may choose, from what the server offers, and how it is asked for.

/** What is chosen before anyone chose: everything as the server has it. */
export const DEFAULTS = { model: "", voice: "", recognizer: "", language: "", instructions: "" };

/**
 * The choices in `GET /v1/models`, less what is there for tests.
 * @returns {{model: Choice[], voice: Choice[], recognizer: Choice[], language: Choice[]}}
 *   where a Choice is `{id, name, standard, languages}`
 */
export function choices(listing, languageName = (code) => code) {
  const entries = (listing?.data ?? []).filter((entry) => entry?.duologue?.kind);
  const ofKind = (kind) =>
    entries.filter(({ duologue }) => duologue.kind === kind && !duologue.tags?.includes("test"));
  const voice = ofKind("tts").flatMap((entry) => voicesOf(entry));
  const recognizer = ofKind("asr").map((entry) => choice(entry.id, entry.duologue));
  return {
    model: ofKind("llm").map((entry) => choice(entry.id, entry.duologue)),
    voice,
    recognizer,
    language: languages(recognizer, voice).map((code) => ({
      id: code,
      name: languageName(code) ?? code,
      standard: false,
      languages: [code],
    })),
  };
}

/** The voices that can speak a language; all of them when none is chosen or none can. */
export function voicesFor(voices, language) {
  const able = voices.filter((voice) => speaks(voice, language));
  return able.length === 0 ? voices : able;
}

/** What was chosen, less what the server does not have (any more). */
export function settle(settings, offered) {
  const settled = { ...DEFAULTS, ...settings };
  for (const key of ["model", "voice", "recognizer", "language"]) {
    if (!offered[key].some((each) => each.id === settled[key])) settled[key] = "";
  }
  const voices = voicesFor(offered.voice, settled.language);
  if (settled.voice !== "" && !voices.some((each) => each.id === settled.voice)) settled.voice = "";
  // A language with voices of its own is not to be read out by the standard voice of another.
  if (settled.language !== "" && settled.voice === "" && voices.length > 0) {
    const standard = offered.voice.find((each) => each.standard);
    if (standard !== undefined && !voices.includes(standard)) settled.voice = voices[0].id;
  }
  return settled;
}

/** The `session.update` that asks for these settings; without sound the reply is asked for in writing. */
export function sessionUpdate(settings, { sound }) {
  const transcription = {};
  if (settings.recognizer !== "") transcription.model = settings.recognizer;
  if (settings.language !== "") transcription.language = settings.language;
  const output = { format: { type: "audio/pcm", rate: 24000 } };
  if (settings.voice !== "") output.voice = settings.voice;
  const session = {
    type: "realtime",
    output_modalities: [sound ? "audio" : "text"],
    audio: {
      input: {
        format: { type: "audio/pcm", rate: 24000 },
        transcription,
        turn_detection: { type: "semantic_vad", create_response: true, interrupt_response: true },
      },
      output,
    },
    duologue: { events: true },
  };
  if (settings.instructions.trim() !== "") session.instructions = settings.instructions.trim();
  return { type: "session.update", session };
}

/** Whether a change can be made in the running session (`false`: it needs a new one). */
export function appliesAtOnce(before, after) {
  const emptied = ["voice", "recognizer", "language"].some((key) => before[key] !== "" && after[key] === "");
  const unsaid = before.instructions.trim() !== "" && after.instructions.trim() === "";
  return before.model === after.model && !emptied && !unsaid;
}

/**
 * The ways to talk, the best first.
 * @param {string[]|null} offered by the server; null where it has not said
 * @param {string|null} forced the one to take and no other
 * @param {{sound: boolean, calls: boolean}} possible here: sound at all, and WebRTC
 */
export function waysOf(offered, forced, { sound, calls }) {
  const all = (offered ?? ["webrtc", "websocket"]).filter((way) => way === "websocket" || (sound && calls));
  if (forced === "websocket" || (forced in PATHS && sound && calls)) return [forced];
  return all.includes("websocket") ? all : [...all, "websocket"];
}

const PATHS = { livekit: "v1/livekit/token", webrtc: "v1/realtime/calls", websocket: "v1/realtime" };

/** Where a conversation is begun, from the page's own address. @param {"livekit"|"webrtc"|"websocket"} way */
export function addressOf(way, page, settings) {
  const url = new URL(PATHS[way], page);
  if (way === "websocket") url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.hash = "";
  url.search = settings.model === "" || way === "livekit" ? "" : `?model=${encodeURIComponent(settings.model)}`;
  return url.href;
}

function voicesOf({ id, duologue }) {
  const voices = duologue.voices ?? [];
  if (voices.length === 0) return [choice(id, duologue)];
  return voices.map((voice, index) =>
    choice(voice.id, {
      name: voice.name,
      languages: voice.languages ?? duologue.languages,
      default: duologue.default && index === 0,
    }),
  );
}

function choice(id, { name, languages, default: standard }) {
  return { id, name: name ?? id, standard: standard === true, languages: (languages ?? []).map(spoken) };
}

// A voice says which English it has ("en-US"); to be understood, "en" is enough.
function spoken(tag) {
  return tag.split("-")[0].toLowerCase();
}

function speaks(voice, language) {
  return language === "" || voice.languages.length === 0 || voice.languages.includes(language);
}

// A language must be heard and spoken to be talked in. A model that names none does any.
function languages(recognizers, voices) {
  const heard = named(recognizers);
  const said = named(voices);
  if (heard === null || said === null) return [...(heard ?? said ?? [])].sort();
  return [...heard].filter((code) => said.has(code)).sort();
}

function named(list) {
  if (list.length === 0 || list.some((each) => each.languages.length === 0)) return null;
  return new Set(list.flatMap((each) => each.languages));
}
