// The page over HTTPS with a self-signed certificate, as a phone in the network has it.

import assert from "node:assert/strict";
import { createHash, X509Certificate } from "node:crypto";
import { mkdtemp, readFile, symlink } from "node:fs/promises";
import { homedir, networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { launch, microphoneFlags, microphoneWav, screenshot, withPage } from "./browser.mjs";
import { duologue, programs } from "./servers.mjs";

const SLOW = { timeout: 240_000, skip: !programs.duologue && "DUOLOGUE_BIN names the program (`cargo xtask test` sets it)" };

test("over https with a self-signed certificate and a key the page gets the microphone at an address of the network", SLOW, async () => {
  const lan = Object.values(networkInterfaces()).flat().find(({ family, internal }) => family === "IPv4" && !internal)?.address ?? "127.0.0.1";
  const data = await mkdtemp(join(tmpdir(), "duologue-data-"));
  const home = process.env.DUOLOGUE_DATA_DIR ?? join(process.env.XDG_DATA_HOME ?? join(homedir(), ".local/share"), "duologue");
  await symlink(join(home, "voicepacks"), join(data, "voicepacks"));
  const given = ["--tls-self-signed", "--asr", "whisper-tiny.en"];
  const key = "a-key-of-the-network";
  const served = await duologue(given, { host: lan, scheme: "https", env: { DUOLOGUE_DATA_DIR: data, DUOLOGUE_API_KEY: key } });
  let speaking;
  try {
    const told = await readFile(served.log, "utf8");
    assert.ok(told.includes(`From a phone in this network: https://${lan}:${served.port}`), told);
    const certificate = new X509Certificate(await readFile(join(data, "tls/certificate.pem")));
    assert.ok(told.includes(certificate.fingerprint256), "the fingerprint that is told is the certificate's");
    assert.match(certificate.subjectAltName, new RegExp(lan.replaceAll(".", "\\.")));
    // As if the user had said yes to this one certificate; every other is refused.
    const hash = createHash("sha256").update(certificate.publicKey.export({ type: "spki", format: "der" })).digest("base64");
    speaking = await launch([...microphoneFlags(await microphoneWav("goforward.flac")), `--ignore-certificate-errors-spki-list=${hash}`]);
    await withPage(speaking, { url: `${served.url}#key=${key}` }, async ({ page, waitForPhase }) => {
      assert.equal(await page.evaluate(() => isSecureContext && location.protocol), "https:");
      assert.equal(await page.evaluate(() => location.hash), "", "the key stays in the address");
      await page.click("#talk");
      await waitForPhase("hearing");
      await waitForPhase("speaking");
      assert.equal(await page.evaluate(() => document.body.dataset.transport), "webrtc");
      assert.match(await page.$eval(".item.user .said", (each) => each.innerText), /go forward (ten|10) met(er|re)s/i);
      await screenshot(page, "https");
    });
    await withPage(speaking, { url: `${served.url}?transport=websocket` }, async ({ page, waitForPlayed }) => {
      await page.waitForSelector("#key-form:not([hidden])");
      assert.match(await page.$eval("#notice", (each) => each.innerText), /asks for a key/);
      await page.fill("#key", "another-key-than-that");
      await page.press("#key", "Enter");
      await page.waitForFunction(() => /does not accept/.test(document.querySelector("#notice").innerText));
      await screenshot(page, "key");
      await page.fill("#key", key);
      await page.press("#key", "Enter");
      await page.waitForSelector("#key-form", { state: "hidden" });
      await page.fill("#text", "Say hello in one short sentence.");
      await page.press("#text", "Enter");
      await waitForPlayed(300);
      assert.equal(await page.evaluate(() => document.body.dataset.transport), "websocket");
    });
  } finally {
    await speaking?.close();
    await served.stop();
  }
});
