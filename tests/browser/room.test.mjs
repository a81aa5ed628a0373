// The page in a room of the real LiveKit server, in a real Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch, microphoneFlags, microphoneWav, say, scriptedMicrophone, withPage } from "./browser.mjs";
import { answered, interrupted, interruptible, recording } from "./heard.mjs";
import { liveKitRoom, programs } from "./servers.mjs";

const missing = !programs.livekit || !programs.duologue;
const SLOW = { timeout: 240_000, skip: missing && "LIVEKIT_SERVER and DUOLOGUE_BIN name the two programs (`cargo xtask test` sets them)" };

let browser;
let room;

before(async () => {
  if (missing) return;
  [browser, room] = await Promise.all([launch(["--use-fake-ui-for-media-stream"]), liveKitRoom()]);
});
after(async () => {
  await browser?.close();
  await room?.stop();
});

test("the page talks in a LiveKit room by itself, and what it hears is the reply that it shows", SLOW, async () => {
  const speaking = await launch(microphoneFlags(await microphoneWav("goforward.flac")));
  try {
    await withPage(speaking, { ...recording, url: room.url }, async (shown) => {
      const { page } = shown;
      const outside = [];
      page.on("request", (request) => new URL(request.url()).hostname === "127.0.0.1" || outside.push(request.url()));
      await page.evaluate(() => {
        window.agent = [];
        new MutationObserver(() => window.agent.push(document.body.dataset.agent)).observe(document.body, { attributes: true, attributeFilter: ["data-agent"] });
      });
      await answered(shown, "livekit", "room", room.url);
      const states = (await page.evaluate(() => window.agent)).filter((state, at, all) => state !== all[at - 1]);
      assert.deepEqual(states.slice(-4), ["listening", "thinking", "speaking", "listening"]);
      assert.deepEqual(outside, [], "the page needs nothing from elsewhere");
    });
  } finally {
    await speaking.close();
  }
});

test("speech over a reply in a room is heard to stop it at once", SLOW, async () => {
  await withPage(browser, { ...interruptible, url: room.url }, async (shown) => {
    await interrupted(shown, "room-cut-off");
    assert.equal(await shown.page.evaluate(() => document.body.dataset.transport), "livekit");
  });
});

test("a microphone that is muted is not heard, and who hangs up has ended the conversation", SLOW, async () => {
  const prepare = (page) => scriptedMicrophone(page, ["jfk.flac"]);
  await withPage(browser, { prepare, url: `${room.url}?transport=livekit` }, async ({ page, phases, waitForPhase }) => {
    await page.click("#talk");
    await waitForPhase("listening");
    await page.click("#mute");
    await waitForPhase("muted");
    const before = (await phases()).length;
    await say(page, "jfk.flac");
    await page.waitForTimeout(3000); // somebody speaks and is not heard
    assert.deepEqual((await phases()).slice(before), []);
    await page.click("#mute");
    await waitForPhase("listening");
    await say(page, "jfk.flac");
    await waitForPhase("hearing");
    await page.click("#hang-up");
    await waitForPhase("off");
    assert.equal(await page.evaluate(() => document.querySelector("#hang-up").disabled), true);
  });
});

test("where no room can be had the page makes a direct call and says why", SLOW, async () => {
  const prepare = (page) =>
    page.route("**/v1/livekit/token", async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, json: { ...(await answer.json()), participant_token: "none" } });
    });
  await withPage(browser, { prepare, url: room.url }, async ({ page, waitForPlayed }) => {
    await page.fill("#text", "Say hello in one short sentence.");
    await page.press("#text", "Enter");
    await waitForPlayed(300);
    assert.equal(await page.evaluate(() => document.body.dataset.transport), "webrtc");
    assert.match(await page.$eval("#notice", (each) => each.innerText), /over WebRTC: a LiveKit room could not be used \(the LiveKit server refused/);
    assert.equal(await page.$$eval(".item.user", (all) => all.length), 1);
  });
});
