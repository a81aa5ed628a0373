import assert from "node:assert/strict";
import { test } from "node:test";
import { DEFAULTS, addressOf, appliesAtOnce, choices, sessionUpdate, settle, voicesFor } from "../settings.js";

const entry = (id, duologue) => ({ id, object: "model", duologue });
const LISTING = {
  data: [
    entry("qwen", { kind: "llm", name: "Qwen", default: true }),
    entry("llama", { kind: "llm" }),
    entry("joe", { kind: "tts", name: "Joe", languages: ["en-US"], default: true }),
    entry("tone", { kind: "tts", languages: [], tags: ["test"] }),
    entry("siwis", { kind: "tts", languages: ["fr"], voices: [{ id: "siwis/0", name: "Anne" }, { id: "siwis/1", name: "Luc" }] }),
    entry("base", { kind: "asr", languages: ["en", "fr", "de"], default: true }),
    { id: "someone-elses", object: "model" },
  ],
};
const offered = choices(LISTING);
const ids = (list) => list.map((each) => each.id);

test("the choices are what the server lists, by kind", () => {
  assert.deepEqual(ids(offered.model), ["qwen", "llama"]);
  assert.deepEqual(ids(offered.voice), ["joe", "siwis/0", "siwis/1"]);
  assert.deepEqual(ids(offered.recognizer), ["base"]);
  assert.equal(offered.model[0].standard, true);
  assert.equal(offered.model[1].name, "llama");
});

test("only languages that are both heard and spoken are offered", () => {
  assert.deepEqual(ids(offered.language), ["en", "fr"]);
});

test("a model that names no languages limits none", () => {
  const open = choices({ data: [entry("any", { kind: "asr" }), entry("joe", { kind: "tts", languages: ["en", "de"] })] });
  assert.deepEqual(ids(open.language), ["de", "en"]);
});

test("what is there for tests is not offered to people", () => {
  assert.ok(!ids(offered.voice).includes("tone"));
});

test("no listing means no choices", () => {
  assert.deepEqual(choices(null), { model: [], voice: [], recognizer: [], language: [] });
});

test("a language leaves the voices that speak it", () => {
  assert.deepEqual(ids(voicesFor(offered.voice, "fr")), ["siwis/0", "siwis/1"]);
  assert.equal(voicesFor(offered.voice, "").length, 3);
  assert.equal(voicesFor(offered.voice, "ja").length, 3);
});

test("what the server no longer has is forgotten", () => {
  const settled = settle({ model: "gone", voice: "joe", language: "", instructions: "Be brief." }, offered);
  assert.deepEqual(settled, { ...DEFAULTS, voice: "joe", instructions: "Be brief." });
});

test("a language the standard voice does not speak picks a voice that does", () => {
  assert.equal(settle({ language: "fr" }, offered).voice, "siwis/0");
  assert.equal(settle({ language: "fr", voice: "joe" }, offered).voice, "siwis/0");
  assert.equal(settle({ language: "en" }, offered).voice, "");
});

test("a session is asked for only what was chosen", () => {
  const plain = sessionUpdate(DEFAULTS, { sound: true }).session;
  assert.equal("voice" in plain.audio.output, false);
  assert.equal("instructions" in plain, false);
  assert.deepEqual(plain.audio.input.transcription, {});
  assert.equal(plain.duologue.events, true);
  const chosen = sessionUpdate({ ...DEFAULTS, voice: "siwis/0", language: "fr", instructions: " Be brief. " }, { sound: false }).session;
  assert.equal(chosen.audio.output.voice, "siwis/0");
  assert.deepEqual(chosen.audio.input.transcription, { language: "fr" });
  assert.equal(chosen.instructions, "Be brief.");
  assert.deepEqual(chosen.output_modalities, ["text"]);
});

test("a new model, or the wish for none, needs a new session; the rest does not", () => {
  const before = { ...DEFAULTS, voice: "joe" };
  assert.equal(appliesAtOnce(before, { ...before, voice: "siwis/0", instructions: "x" }), true);
  assert.equal(appliesAtOnce(before, { ...before, model: "llama" }), false);
  assert.equal(appliesAtOnce(before, { ...before, voice: "" }), false);
});

test("the session is on the page's own host, secure if the page is", () => {
  assert.equal(addressOf("websocket", "http://box:8080/", DEFAULTS), "ws://box:8080/v1/realtime");
  assert.equal(addressOf("websocket", "https://box/talk/?x=1#y", { ...DEFAULTS, model: "a/b" }), "wss://box/talk/v1/realtime?model=a%2Fb");
});
