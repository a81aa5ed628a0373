// Calls over WebRTC in a real Chromium: the page's own, and those of a stock client.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { launch, microphoneFlags, microphoneWav, screenshot, serverUrl, withPage } from "./browser.mjs";
import { answered, interrupted, interruptible, recording, shareOf, transcribed } from "./heard.mjs";

const SLOW = { timeout: 240_000 };
const AGENTS = createRequire(import.meta.url).resolve("@openai/agents-realtime").replace(/dist.*/, "dist/bundle/openai-realtime-agents.umd.js");

let browser;

before(async () => {
  serverUrl();
  browser = await launch(["--use-fake-ui-for-media-stream"]);
});
after(() => browser?.close());

test("the page calls over WebRTC by itself, and what it hears is the reply that it shows", SLOW, async () => {
  const speaking = await launch(microphoneFlags(await microphoneWav("goforward.flac")));
  try {
    await withPage(speaking, recording, (shown) => answered(shown, "webrtc", "call"));
  } finally {
    await speaking.close();
  }
});

test("speech over a reply is heard to stop it at once, in the call itself and at the speaker", SLOW, async () => {
  await withPage(browser, interruptible, (shown) => interrupted(shown, "call-cut-off"));
});

test("where a call does not connect the page takes a WebSocket and says so", SLOW, async () => {
  const prepare = (page) =>
    page.route("**/v1/realtime/calls*", async (route) => {
      if (route.request().method() !== "POST") return route.continue();
      const answer = await route.fetch();
      const sdp = (await answer.text()).replace(/^a=candidate:.*\r\n/gm, "");
      await route.fulfill({ response: answer, body: `${sdp}a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n` });
    });
  await withPage(browser, { prepare }, async ({ page, waitForPlayed, waitForPhase }) => {
    await page.fill("#text", "Say hello in one short sentence.");
    await page.press("#text", "Enter");
    await waitForPlayed(300);
    assert.equal(await page.evaluate(() => document.body.dataset.transport), "websocket");
    assert.match(await page.$eval("#notice", (each) => each.innerText), /over a WebSocket.*did not connect/s);
    await screenshot(page, "call-fell-back");
    await waitForPhase("ready");
    assert.equal(await page.$$eval(".item.user", (all) => all.length), 1);
  });
});

test("an ICE restart mends a call and the conversation goes on in it", SLOW, async () => {
  await withPage(browser, {}, async ({ page }) => {
    const outcome = await page.evaluate(async () => {
      const peer = new RTCPeerConnection();
      peer.addTransceiver("audio");
      const channel = peer.createDataChannel("oai-events");
      const events = [];
      channel.onmessage = ({ data }) => events.push(JSON.parse(data).type);
      const offer = async (address, options) => {
        await peer.setLocalDescription(await peer.createOffer(options));
        const answer = await fetch(address, { method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp });
        await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
        return answer;
      };
      const until = async (what) => {
        while (!what()) await new Promise((resolve) => setTimeout(resolve, 20));
      };
      const pairs = async () => {
        const all = [];
        (await peer.getStats()).forEach((entry) => entry.type === "candidate-pair" && entry.nominated && entry.state === "succeeded" && all.push(entry.localCandidateId));
        return all;
      };
      const made = await offer("v1/realtime/calls");
      const location = made.headers.get("Location");
      await until(() => events.includes("session.created"));
      const fragment = /a=ice-ufrag:(\S+)/.exec(peer.remoteDescription.sdp)[1];
      const mended = await offer(location, { iceRestart: true });
      const other = /a=ice-ufrag:(\S+)/.exec(peer.remoteDescription.sdp)[1];
      await until(() => peer.iceConnectionState === "connected" || peer.iceConnectionState === "completed");
      await new Promise((resolve) => setTimeout(resolve, 1500));
      channel.send(JSON.stringify({ type: "session.update", session: { type: "realtime", instructions: "Be brief." } }));
      await until(() => events.includes("session.updated"));
      const state = peer.connectionState;
      const used = (await pairs()).length;
      peer.close();
      return { statuses: [made.status, mended.status], changed: fragment !== other, state, used };
    });
    assert.deepEqual(outcome.statuses, [201, 200]);
    assert.ok(outcome.changed, "the credentials are the old ones");
    assert.equal(outcome.state, "connected");
    assert.ok(outcome.used >= 1);
  });
});

test("@openai/agents-realtime talks over WebRTC with nothing changed but its address", SLOW, async () => {
  const speaking = await launch(microphoneFlags(await microphoneWav("goforward.flac")));
  try {
    await withPage(speaking, recording, async ({ page }) => {
      await page.addScriptTag({ path: AGENTS });
      const written = await page.evaluate(async (base) => {
        const { RealtimeAgent, RealtimeSession, OpenAIRealtimeWebRTC } = window.OpenAIAgentsRealtime;
        const agent = new RealtimeAgent({ name: "Duo", instructions: "Answer in one short sentence." });
        const transport = new OpenAIRealtimeWebRTC({ baseUrl: `${base}v1/realtime/calls` });
        const session = new RealtimeSession(agent, { transport });
        const errors = [];
        session.on("error", (error) => errors.push(JSON.stringify(error)));
        const events = [];
        transport.on("*", (event) => events.push(event));
        const asked = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" };
        const secret = await (await fetch(`${base}v1/realtime/client_secrets`, asked)).json();
        await session.connect({ apiKey: secret.value, model: "duologue" });
        const find = (type) => events.find((event) => event.type === type);
        while (!find("output_audio_buffer.stopped")) await new Promise((resolve) => setTimeout(resolve, 50));
        await new Promise((resolve) => setTimeout(resolve, 500));
        session.close();
        return {
          reply: find("response.output_audio_transcript.done").transcript,
          said: find("conversation.item.input_audio_transcription.completed").transcript,
          errors,
        };
      }, serverUrl().replace(/\/?$/, "/"));
      assert.deepEqual(written.errors, []);
      assert.match(written.said, /go forward (ten|10) met(er|re)s/i);
      const heard = await transcribed(page);
      assert.ok(await shareOf(written.reply, heard) >= 0.75, `written: ${written.reply}\nheard: ${heard}`);
    });
  } finally {
    await speaking.close();
  }
});

test("where UDP is blocked a call goes over TCP", SLOW, async (t) => {
  await withPage(browser, {}, async ({ page }) => {
    const outcome = await page.evaluate(async () => {
      const peer = new RTCPeerConnection();
      peer.addTransceiver("audio");
      const channel = peer.createDataChannel("oai-events");
      const created = new Promise((resolve) => (channel.onmessage = ({ data }) => resolve(JSON.parse(data).type)));
      await peer.setLocalDescription();
      const answer = await fetch("v1/realtime/calls", { method: "POST", headers: { "Content-Type": "application/sdp" }, body: peer.localDescription.sdp });
      const sdp = (await answer.text()).replace(/^a=candidate:\S+ \d+ udp .*\r\n/gim, "");
      if (!/^a=candidate:.* tcp /im.test(sdp)) return "no TCP port";
      await peer.setRemoteDescription({ type: "answer", sdp });
      const type = await created;
      const protocols = new Set();
      const all = await peer.getStats();
      all.forEach((entry) => entry.type === "candidate-pair" && entry.nominated && protocols.add(all.get(entry.localCandidateId).protocol));
      peer.close();
      return [type, ...protocols].join(" ");
    });
    if (outcome === "no TCP port") return t.skip("the server has no port for calls over TCP: start it with --webrtc-port");
    assert.equal(outcome, "session.created tcp");
  });
});
