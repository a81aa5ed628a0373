// The page in a real Chromium when its connection breaks, or its server dies: the conversation is known, and goes on.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import http from "node:http";
import net from "node:net";
import { after, before, test } from "node:test";
import { launch, withPage } from "./browser.mjs";
import { duologue, liveKitServer, programs, redisServer } from "./servers.mjs";

const SLOW = { timeout: 120_000, skip: !programs.duologue && "DUOLOGUE_BIN names the program (`cargo xtask test` sets it)" };

let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

const QUICK = ["--voice", "tone", "--asr", "whisper-tiny.en", "--vad", "light:2", "--no-end-of-turn"];
const listen = (server) => new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));

/** A language model that says how much it was told. */
async function countingModel() {
  const asked = [];
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const part of request) body += part;
    const messages = JSON.parse(body || "{}").messages ?? [];
    asked.push(messages);
    const text = `User ${messages.filter(({ role }) => role === "user").length}.`;
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text } }] })}\n\n`);
    response.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}\n\n`);
    response.end("data: [DONE]\n\n");
  });
  const port = await listen(server);
  return { url: `http://127.0.0.1:${port}/v1`, asked, stop: () => server.close() };
}

/** Asks in writing, and waits for the answer; says how much then stands on the page. */
async function ask(page, text, answer) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
  await page.waitForFunction((answer) => [...document.querySelectorAll(".item.assistant .said")].some((each) => each.innerText.includes(answer)), answer);
  return { user: (await page.$$(".item.user")).length, assistant: (await page.$$(".item.assistant")).length };
}

const goesOn = (page) => page.waitForFunction(() => /goes on/.test(document.querySelector("#notice").innerText), null, { timeout: 10_000 });

/** A way to a server that can be cut. */
async function cuttable(port) {
  const sockets = new Set();
  const server = net.createServer((near) => {
    const far = net.connect(port, "127.0.0.1");
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.pipe(other);
      one.on("error", () => {});
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  const own = await listen(server);
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return { url: `http://127.0.0.1:${own}/?transport=websocket`, cut, stop: () => (server.close(), cut()) };
}

test("a page whose connection breaks goes on with its conversation, which the server knows", SLOW, async () => {
  const model = await countingModel();
  const server = await duologue([
    ...[...QUICK, "--no-webrtc"],
    ...["--journal", "memory", "--llm-url", model.url, "--llm-model", "counts"],
  ]);
  const way = await cuttable(server.port);
  try {
    await withPage(browser, { url: way.url }, async ({ page }) => {
      const sent = [];
      page.on("websocket", (socket) => socket.on("framesent", ({ payload }) => sent.push(JSON.parse(payload).type)));
      await ask(page, "One.", "User 1.");
      await page.waitForTimeout(1_000); // the reply's last words are written down
      way.cut();
      await goesOn(page);
      const before = sent.filter((type) => type === "conversation.item.create").length;
      assert.equal(before, 1, "the page told the server what the server knows");
      assert.deepEqual(await ask(page, "Two.", "User 2."), { user: 2, assistant: 2 });
    });
  } finally {
    way.stop();
    await server.stop();
    model.stop();
  }
});

const ROOM = { timeout: 120_000, skip: (!programs.duologue || !programs.livekit) && "DUOLOGUE_BIN and LIVEKIT_SERVER name the two programs (`cargo xtask test` sets them)" };

test("a page in a LiveKit room whose server is killed goes on with another server", ROOM, async () => {
  const [model, redis, livekit] = await Promise.all([countingModel(), redisServer(), liveKitServer()]);
  const given = [...QUICK, ...livekit.given, "--journal", redis.url, "--llm-url", model.url, "--llm-model", "counts"];
  const servers = await Promise.all([duologue(given, livekit.taker), duologue(given, livekit.taker)]);
  const talks = async ({ log }) => (await readFile(log, "utf8")).includes("somebody is in the LiveKit room");
  try {
    await withPage(browser, { url: `${servers[0].url}?transport=livekit` }, async ({ page }) => {
      await ask(page, "One.", "User 1.");
      await page.waitForTimeout(1_000); // the reply's last words are written down
      const talking = (await talks(servers[0])) ? 0 : 1;
      servers[talking].kill();
      await goesOn(page);
      assert.ok(await talks(servers[1 - talking]));
      assert.equal(await page.evaluate(() => document.body.dataset.transport), "livekit");
      assert.deepEqual(await ask(page, "Two.", "User 2."), { user: 2, assistant: 2 });
    });
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await livekit.stop();
    await redis.stop();
    model.stop();
  }
});
