// The page in a real Chromium, against a running server (DUOLOGUE_URL).

import assert from "node:assert/strict";
import net from "node:net";
import { after, before, test } from "node:test";
import { launch, microphoneFlags, microphoneWav, say, scriptedMicrophone, screenshot, serverUrl, withPage } from "./browser.mjs";

const STORYTELLER = "Answer with a long story of at least twenty sentences.";
const STORY = "Tell me a story about the sea.";
const SLOW = { timeout: 240_000 };

let browser;

before(async () => {
  serverUrl();
  browser = await launch(["--use-fake-ui-for-media-stream"]);
});
after(() => browser?.close());

const texts = (page, role) => page.$$eval(`.item.${role} .said`, (all) => all.map((each) => each.innerText.trim()));
const textOf = (page, selector) => page.$eval(selector, (each) => each.innerText);

async function askForStory(page) {
  await page.fill("[name=instructions]", STORYTELLER);
  await page.locator("[name=instructions]").blur();
  await type(page, STORY);
}

async function type(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

test("a spoken request is transcribed, answered aloud, and its latency is drawn", SLOW, async () => {
  const speaking = await launch(microphoneFlags(await microphoneWav("goforward.flac")));
  try {
    await withPage(speaking, {}, async ({ page, phases, waitForPhase, waitForPlayed }) => {
      await page.click("#talk");
      await waitForPhase("hearing");
      await screenshot(page, "hearing");
      await page.waitForFunction(() => /forward/i.test(document.querySelector(".item.user .said")?.innerText), null, { timeout: 90_000 });
      await waitForPhase("speaking");
      await waitForPlayed(300);
      await screenshot(page, "speaking");
      assert.match((await texts(page, "user"))[0], /go forward (ten|10) met(er|re)s/i);
      assert.match((await texts(page, "assistant"))[0], /\w{2,}/);
      assert.ok((await page.evaluate(() => window.loudest)) > 0.2, "the reply was silent");
      await page.waitForSelector("#bars .played");
      const bars = await page.$$eval("#bars rect", (all) => all.map((each) => each.getAttribute("class").replace("bar ", "")));
      for (const step of ["end_of_turn", "transcript", "first_clause", "first_audio", "sent", "played"]) {
        assert.ok(bars.includes(step), `no bar for ${step}: ${bars}`);
      }
      const seen = await phases();
      for (const phase of ["off", "listening", "hearing", "speaking"]) assert.ok(seen.includes(phase), `${phase} was never shown: ${seen}`);
    });
  } finally {
    await speaking.close();
  }
});

test("speech over a long reply holds it, then cuts it off where it was heard", SLOW, async () => {
  const options = { colorScheme: "dark", prepare: (each) => scriptedMicrophone(each, ["jfk.flac"]) };
  await withPage(browser, options, async ({ page, phases, waitForPhase, waitForPhaseSince, waitForPlayed }) => {
    await page.click("#talk");
    await waitForPhase("listening");
    await askForStory(page);
    await waitForPhase("speaking");
    await waitForPlayed(1500);
    const before = (await phases()).length;
    await say(page, "jfk.flac");
    await waitForPhaseSince(before, "held");
    await screenshot(page, "held");
    await page.waitForSelector(".item.assistant .note", { timeout: 60_000 });
    await screenshot(page, "cut-off");
    assert.match((await texts(page, "assistant"))[0], /^\w.*(not heard|Stopped here)/s);
    // The interruption becomes a turn of its own, and is answered.
    await page.waitForFunction(() => document.querySelectorAll(".item.assistant").length === 2, null, { timeout: 120_000 });
    // A speaker who pauses may be taken to have finished; the words are there all the same.
    assert.match((await texts(page, "user")).join(" "), /fellow american/i);
  });
});

test("a typed line is answered aloud without a microphone", SLOW, async () => {
  await withPage(browser, { viewport: { width: 375, height: 720 }, colorScheme: "light" }, async ({ page, waitForPlayed, waitForPhase }) => {
    await screenshot(page, "phone-empty");
    await type(page, "Say hello in one short sentence.");
    await waitForPlayed(300);
    await screenshot(page, "phone-typed");
    assert.deepEqual(await texts(page, "user"), ["Say hello in one short sentence."]);
    assert.match((await texts(page, "assistant"))[0], /\w{2,}/);
    await waitForPhase("ready");
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wide, 0, "the page is wider than the phone");
    await page.click("#panel-toggle");
    await page.waitForSelector("#bars rect");
    await screenshot(page, "phone-panel");
  });
});

test("Escape stops a long reply and the conversation goes on", SLOW, async () => {
  await withPage(browser, {}, async ({ page, waitForPlayed, waitForPhase }) => {
    await askForStory(page);
    await waitForPlayed(1000);
    await page.keyboard.press("Escape");
    await waitForPhase("ready");
    const stopped = Number(await page.evaluate(() => document.body.dataset.playedMs));
    assert.equal(await page.$$eval(".item.assistant .note", (all) => all.length), 1);
    await type(page, "Say hello in one short sentence.");
    await page.waitForFunction(() => document.querySelectorAll(".item.assistant").length === 2, null, { timeout: 90_000 });
    await page.waitForFunction((ms) => Number(document.body.dataset.playedMs) < ms, stopped, { timeout: 90_000 });
    await waitForPhase("ready");
    assert.equal(await page.isHidden("#notice"), true, await textOf(page, "#notice"));
  });
});

test("a blocked microphone is told with what to do", SLOW, async () => {
  const strict = await launch(["--deny-permission-prompts"]);
  try {
    await withPage(strict, { viewport: { width: 375, height: 720 }, colorScheme: "dark" }, async ({ page, waitForPhase }) => {
      await page.click("#talk");
      await page.waitForSelector("#notice:not([hidden])");
      assert.match(await textOf(page, "#notice"), /microphone is blocked.*Allow it/s);
      await waitForPhase("off");
      await screenshot(page, "microphone-blocked");
    });
  } finally {
    await strict.close();
  }
});

test("a lost connection is told, comes back by itself, and keeps what was said", SLOW, async () => {
  const line = await proxy(new URL(serverUrl()));
  try {
    await withPage(browser, { url: `${line.url}?transport=websocket` }, async ({ page, waitForPhase, waitForPlayed }) => {
      await type(page, "Say hello in one short sentence.");
      await waitForPlayed(200);
      await waitForPhase("ready");
      await line.cut();
      await page.waitForSelector("#notice:not([hidden])");
      assert.match(await textOf(page, "#notice"), /connection was lost|does not answer/);
      await screenshot(page, "connection-lost");
      await line.mend();
      await waitForPhase("ready");
      assert.equal(await page.isHidden("#notice"), true);
      assert.deepEqual(await texts(page, "user"), ["Say hello in one short sentence."]);
      await type(page, "And goodbye.");
      await page.waitForFunction(() => document.querySelectorAll(".item.assistant").length === 2, null, { timeout: 90_000 });
    });
  } finally {
    await line.close();
  }
});

test("everything can be reached and done with the keyboard", SLOW, async () => {
  await withPage(browser, { prepare: (each) => scriptedMicrophone(each, []) }, async ({ page, waitForPhase }) => {
    const reached = [];
    for (let n = 0; n < 12; n++) {
      await page.keyboard.press("Tab");
      reached.push(await page.evaluate(() => document.activeElement.id || document.activeElement.name || document.activeElement.textContent.trim()));
    }
    for (const id of ["transcript", "talk", "text", "instructions"]) assert.ok(reached.includes(id), `${id} not in ${reached}`);
    await page.focus("#talk");
    await page.keyboard.press("Space");
    await waitForPhase("listening");
    await page.keyboard.press("m");
    await waitForPhase("muted");
    assert.equal(await page.getAttribute("#mute", "aria-pressed"), "true");
    await screenshot(page, "muted");
    await page.keyboard.press("m");
    await waitForPhase("listening");
    await page.focus("#hang-up");
    await page.keyboard.press("Enter");
    await waitForPhase("off");
  });
});

// A plain TCP relay to the server that can be cut and mended.
async function proxy(target) {
  const sockets = new Set();
  let cut = false;
  const server = net.createServer((near) => {
    if (cut) return near.destroy();
    const far = net.connect(Number(target.port || 80), target.hostname);
    for (const [a, b] of [[near, far], [far, near]]) {
      sockets.add(a);
      a.on("error", () => b.destroy());
      a.on("close", () => {
        sockets.delete(a);
        b.destroy();
      });
      a.pipe(b);
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    async cut() {
      cut = true;
      for (const socket of sockets) socket.destroy();
    },
    async mend() {
      cut = false;
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
