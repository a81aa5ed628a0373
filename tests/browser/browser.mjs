// A real Chromium with a microphone that says what the test wants, when it wants.

import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

const SPEECH = new URL("../data/speech/", import.meta.url);
const ARTIFACTS = process.env.DUOLOGUE_ARTIFACTS ?? join(tmpdir(), "duologue-browser");
const NAMES = ["chromium", "chromium-browser", "google-chrome"];
const RATE = 48000;

/** The server under test. */
export function serverUrl() {
  const url = process.env.DUOLOGUE_URL;
  if (!url) throw new Error("DUOLOGUE_URL is not set: give the address that `duologue serve` printed, for example http://127.0.0.1:8080");
  return url;
}

/** @param {string[]} flags more command line flags */
export async function launch(flags = []) {
  const places = (process.env.PATH ?? "").split(delimiter).flatMap((folder) => NAMES.map((name) => join(folder, name)));
  const executablePath = process.env.CHROMIUM ?? places.find((place) => existsSync(place));
  if (!executablePath) {
    throw new Error(`no ${NAMES.join(" or ")} on the PATH: install it (Debian: apt-get install chromium) or set CHROMIUM`);
  }
  return chromium.launch({
    executablePath,
    args: ["--no-sandbox", "--disable-gpu", "--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required", ...flags],
  });
}

/** Flags for a microphone that plays a WAV file once, from when it is opened. */
export function microphoneFlags(wav) {
  return ["--use-fake-ui-for-media-stream", `--use-file-for-fake-audio-capture=${wav}%noloop`];
}

/**
 * Runs `body` with a fresh page. Script errors of the page fail it; whatever fails it is told
 * together with the last events on the wire, and a picture is kept.
 */
export async function withPage(browser, options, body) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const errors = [];
  const events = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("websocket", (socket) => {
    const began = Date.now();
    const note = (arrow) => (frame) => typeof frame.payload === "string" && events.push(`${((Date.now() - began) / 1000).toFixed(2)} s ${arrow} ${brief(frame.payload)}`);
    socket.on("framesent", note(">"));
    socket.on("framereceived", note("<"));
  });
  try {
    await body(await open(page, options));
    if (errors.length > 0) throw new Error(`the page threw: ${errors.join("; ")}`);
  } catch (error) {
    await screenshot(page, "failed").catch(() => {});
    const last = events.filter((event) => !/audio.*delta|append|duologue.playout \{/.test(event)).slice(-40);
    error.message += `\nThe last events:\n  ${last.join("\n  ")}`;
    throw error;
  } finally {
    await context.close();
  }
}

function brief(payload) {
  const { type, audio, event_id, delta, session, ...rest } = JSON.parse(payload);
  return `${type} ${JSON.stringify(rest).slice(0, 240)}`;
}

async function open(page, { prepare = async () => {}, url = serverUrl() }) {
  await page.addInitScript(recordPhases);
  await prepare(page);
  await page.goto(url);
  return {
    page,
    phases: () => page.evaluate(() => window.phases),
    waitForPhase: (phase, timeout = 90_000) =>
      page.waitForFunction((wanted) => document.querySelector("#dock").dataset.phase === wanted, phase, { timeout }),
    waitForPhaseSince: (count, phase, timeout = 90_000) =>
      page.waitForFunction(([from, wanted]) => window.phases.slice(from).includes(wanted), [count, phase], { timeout }),
    waitForPlayed: (ms, timeout = 90_000) =>
      page.waitForFunction((wanted) => Number(document.body.dataset.playedMs ?? 0) >= wanted, ms, { timeout }),
  };
}

// Keeps every phase the page went through, and the loudest the reply was.
function recordPhases() {
  window.phases = [];
  window.loudest = 0;
  addEventListener("DOMContentLoaded", () => {
    const dock = document.querySelector("#dock");
    const note = () => {
      if (window.phases.at(-1) !== dock.dataset.phase) window.phases.push(dock.dataset.phase);
    };
    note();
    new MutationObserver(note).observe(dock, { attributes: true, attributeFilter: ["data-phase"] });
    new MutationObserver(() => {
      window.loudest = Math.max(window.loudest, Number(document.body.dataset.replyLevel ?? 0));
    }).observe(document.body, { attributes: true, attributeFilter: ["data-reply-level"] });
  });
}

/** A clip of tests/data/speech as base64 FLAC. */
export async function clip(name) {
  return (await readFile(new URL(name, SPEECH))).toString("base64");
}

/**
 * A WAV file (48 kHz, mono) of silence, a clip, and silence again. The browser itself decodes
 * the FLAC.
 */
export async function microphoneWav(name, { before = 1.5, after = 5 } = {}) {
  const browser = await launch();
  try {
    const page = await (await browser.newContext()).newPage();
    const samples = await page.evaluate(decodeClip, [await clip(name), RATE]);
    const pcm = Buffer.from(samples, "base64");
    const silence = (seconds) => Buffer.alloc(Math.round(seconds * RATE) * 2);
    const file = join(await mkdtemp(join(tmpdir(), "duologue-mic-")), "microphone.wav");
    await writeFile(file, wav(Buffer.concat([silence(before), pcm, silence(after)])));
    return file;
  } finally {
    await browser.close();
  }
}

async function decodeClip([flac, rate]) {
  const bytes = Uint8Array.from(atob(flac), (character) => character.charCodeAt(0));
  const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.buffer);
  const samples = Int16Array.from(audio.getChannelData(0), (sample) => Math.round(Math.max(-1, Math.min(1, sample)) * 32767));
  const out = new Uint8Array(samples.buffer);
  let binary = "";
  for (let at = 0; at < out.length; at += 8192) binary += String.fromCharCode(...out.subarray(at, at + 8192));
  return btoa(binary);
}

export function wav(pcm, rate = RATE) {
  const head = Buffer.alloc(44);
  head.write("RIFF", 0);
  head.writeUInt32LE(36 + pcm.length, 4);
  head.write("WAVEfmt ", 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(rate, 24);
  head.writeUInt32LE(rate * 2, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write("data", 36);
  head.writeUInt32LE(pcm.length, 40);
  return Buffer.concat([head, pcm]);
}

/**
 * Gives a page a microphone that is silent until the test calls `say(page, name)`: for speech
 * that has to fall on a certain moment of the conversation.
 */
export async function scriptedMicrophone(page, names) {
  const clips = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await clip(name)])));
  await page.addInitScript((given) => {
    let context;
    let output;
    navigator.mediaDevices.getUserMedia = async () => {
      context = new AudioContext();
      output = context.createMediaStreamDestination();
      await context.resume();
      return output.stream;
    };
    window.say = async (name) => {
      const bytes = Uint8Array.from(atob(given[name]), (character) => character.charCodeAt(0));
      const source = context.createBufferSource();
      source.buffer = await context.decodeAudioData(bytes.buffer);
      source.connect(output);
      source.start();
    };
  }, clips);
}

export function say(page, name) {
  return page.evaluate((which) => window.say(which), name);
}

/** A picture of the page for a person to look at. */
export async function screenshot(page, name) {
  await mkdir(ARTIFACTS, { recursive: true });
  await page.screenshot({ path: join(ARTIFACTS, `${name}.png`) });
}
