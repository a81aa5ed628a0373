// A page whose network lets nothing through but a TURN server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, screenshot, withPage } from "./browser.mjs";
import { recordCalls, shareOf, transcribed } from "./heard.mjs";
import { duologue, programs, turnServer } from "./servers.mjs";

const missing = !programs.duologue || !programs.turn;
const SLOW = { timeout: 240_000, skip: missing && "DUOLOGUE_BIN and TURN_SERVER name the two programs (`cargo xtask test` sets them)" };

test("where only a TURN server is let through, the page calls by the one that the server names", SLOW, async () => {
  const turn = await turnServer();
  let served;
  let browser;
  try {
    served = await duologue(["--asr", "whisper-tiny.en", "--ice-server", turn.iceServer]);
    browser = await launch(["--use-fake-ui-for-media-stream", "--allow-loopback-in-peer-connection"]);
    const prepare = async (page) => {
      await page.addInitScript(() => {
        const Original = window.RTCPeerConnection;
        window.RTCPeerConnection = class extends Original {
          constructor(configuration) {
            super({ ...configuration, iceTransportPolicy: "relay" });
          }
        };
      });
      await page.addInitScript(recordCalls);
    };
    await withPage(browser, { prepare, url: `${served.url}?transport=webrtc` }, async ({ page, phases, waitForPhase, waitForPhaseSince }) => {
      await page.fill("#text", "Say hello in one short sentence.");
      await page.press("#text", "Enter");
      await waitForPhase("speaking");
      const before = (await phases()).length;
      await waitForPhaseSince(before, "ready");
      await page.waitForTimeout(500); // the end of the sound is on its way
      const used = await page.evaluate(async () => {
        const relays = [];
        const all = await window.peers.at(-1).getStats();
        all.forEach((entry) => entry.type === "candidate-pair" && entry.nominated && relays.push(all.get(entry.localCandidateId).relayProtocol ?? "none"));
        return relays;
      });
      assert.deepEqual([...new Set(used)], ["udp"], "by which protocol the relay was spoken to");
      const written = await page.$eval(".item.assistant .said", (each) => each.innerText);
      const heard = await transcribed(page, served.url);
      assert.ok(await shareOf(written, heard, served.url) >= 0.75, `shown: ${written}\nheard: ${heard}`);
      await screenshot(page, "relay");
    });
  } finally {
    await browser?.close();
    await served?.stop();
    await turn.stop();
  }
});
