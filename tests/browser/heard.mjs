// What a page heard over calls: kept, written down, measured.

import assert from "node:assert/strict";
import { say, screenshot, scriptedMicrophone, serverUrl, wav } from "./browser.mjs";

/** For a page: keeps what comes over calls, as 48 kHz samples with the time of each block. */
export function recordCalls() {
  window.peers = [];
  window.heard = [];
  const Original = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Original {
    constructor(...given) {
      super(...given);
      window.peers.push(this);
      this.addEventListener("track", async ({ track }) => {
        const reader = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return;
          const samples = new Float32Array(value.numberOfFrames);
          value.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
          window.heard.push({ at: performance.now(), samples, rate: value.sampleRate });
          value.close();
        }
      });
    }
  };
}

export const recording = { prepare: (page) => page.addInitScript(recordCalls) };

/** What was heard, written down by a server. */
export async function transcribed(page, server = serverUrl()) {
  const { data, rate } = await page.evaluate(() => {
    const all = window.heard;
    const out = new Int16Array(all.reduce((sum, block) => sum + block.samples.length, 0));
    let at = 0;
    for (const { samples } of all) for (const sample of samples) out[at++] = Math.max(-1, Math.min(1, sample)) * 32767;
    const bytes = new Uint8Array(out.buffer);
    let binary = "";
    for (let n = 0; n < bytes.length; n += 8192) binary += String.fromCharCode(...bytes.subarray(n, n + 8192));
    return { data: btoa(binary), rate: all[0].rate };
  });
  return writtenDown(wav(Buffer.from(data, "base64"), rate), server);
}

async function writtenDown(sound, server) {
  const form = new FormData();
  form.set("model", "whisper-1");
  form.set("file", new Blob([sound]), "heard.wav");
  const answer = await fetch(new URL("v1/audio/transcriptions", server), { method: "POST", body: form });
  assert.equal(answer.status, 200);
  return (await answer.json()).text;
}

/**
 * How much of a reply was heard. The recognizer takes some words of the voice for others ("forward ten" for "four
 * ten"), so it counts as well what it makes of the same words that went through no call.
 */
export async function shareOf(written, heard, server = serverUrl()) {
  const body = JSON.stringify({ model: "tts-1", voice: "alloy", input: written, response_format: "wav" });
  const spoken = await fetch(new URL("v1/audio/speech", server), { method: "POST", headers: { "content-type": "application/json" }, body });
  assert.equal(spoken.status, 200);
  const without = await writtenDown(await spoken.arrayBuffer(), server);
  return Math.max(share(written, heard), share(without, heard));
}

const letters = (text) => [...text.toLowerCase().replace(/[^a-z0-9]+/g, "")];

/**
 * How much of what was written was also heard: letters in their order (longest common subsequence), because a
 * recognizer takes a word or two of a short sentence for others that sound alike. Sentences that have nothing to do
 * with each other share about half.
 */
function share(written, heard) {
  const [a, b] = [letters(written), letters(heard)];
  let row = new Array(b.length + 1).fill(0);
  for (const letter of a) row = row.reduce((next, above, j) => (next.push(j === 0 ? 0 : letter === b[j - 1] ? row[j - 1] + 1 : Math.max(above, next[j - 1])), next), []);
  return row.at(-1) / Math.max(1, a.length);
}

/** For a page that will have `interrupted` said over a reply. */
export const interruptible = {
  prepare: async (page) => {
    await scriptedMicrophone(page, ["jfk.flac"]);
    await page.addInitScript(recordCalls);
  },
};

/** A long reply is asked for and spoken over: it is heard to stop at once, and what is shown of it was heard. */
export async function interrupted({ page, phases, waitForPhase, waitForPhaseSince, waitForPlayed }, picture) {
  await page.click("#talk");
  await waitForPhase("listening");
  await page.fill("[name=instructions]", "Answer with a long story of at least twenty sentences.");
  await page.locator("[name=instructions]").blur();
  await page.fill("#text", "Tell me a story about the sea.");
  await page.press("#text", "Enter");
  await waitForPhase("speaking");
  await waitForPlayed(2000);
  const before = (await phases()).length;
  await say(page, "jfk.flac");
  await waitForPhaseSince(before, "held");
  const last = await heardUntil(page);
  assert.ok(last < 400, `heard until ${last} ms after the interruption was known`);
  await page.waitForSelector(".item.assistant .note", { timeout: 60_000 });
  assert.match(await page.$eval(".item.assistant .said", (each) => each.innerText), /^\w/);
  await screenshot(page, picture);
}

/** What was said to the page is answered: what is heard is the reply that it shows. */
export async function answered({ page, waitForPhase, waitForPhaseSince, phases }, transport, picture, server = serverUrl()) {
  await page.click("#talk");
  await waitForPhase("hearing");
  assert.equal(await page.evaluate(() => document.body.dataset.transport), transport);
  assert.equal(await page.isHidden("#notice"), true);
  await waitForPhase("speaking");
  await screenshot(page, picture);
  const before = (await phases()).length;
  await waitForPhaseSince(before, "listening");
  await page.waitForTimeout(500); // the end of the sound is on its way
  const written = await page.$eval(".item.assistant .said", (each) => each.innerText);
  const heard = await transcribed(page, server);
  assert.ok(await shareOf(written, heard, server) >= 0.75, `shown: ${written}\nheard: ${heard}`);
  assert.match(await page.$eval(".item.user .said", (each) => each.innerText), /go forward (ten|10) met(er|re)s/i);
}

/** A reply was told to hold just now: for how many ms more it is heard, over 700 ms. */
async function heardUntil(page) {
  const held = await page.evaluate(() => performance.now());
  await page.waitForTimeout(700); // listening to what is still heard
  const levels = await page.evaluate((since) => window.heard
    .filter(({ at }) => at > since - 1000 && at < since + 700)
    .map(({ at, samples }) => ({ at: at - since, rms: Math.hypot(...samples) / Math.sqrt(samples.length) })), held);
  const loud = levels.filter(({ rms }) => rms > 0.01).map(({ at }) => at);
  assert.ok(loud.some((at) => at < -100), "the reply was not heard before");
  const last = Math.max(...loud);
  console.log(`heard until ${last.toFixed(0)} ms after the page was told to hold`);
  return last;
}
