// Servers of a test's own: Duologue as the test wants it, and the real LiveKit server, a TURN server.

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { createWriteStream } from "node:fs";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const KEY = "devkey";
const SECRET = "a-secret-of-more-than-32-characters";

/** The two programs; `cargo xtask test` names them. */
export const programs = { livekit: process.env.LIVEKIT_SERVER, duologue: process.env.DUOLOGUE_BIN, turn: process.env.TURN_SERVER };

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function freeUdpPort() {
  const socket = createSocket("udp4");
  await new Promise((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

async function until(look, ms, what) {
  const end = Date.now() + ms;
  while (Date.now() < end) {
    if (await look().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`not within ${ms / 1000} s: ${what}`);
}

async function start(program, given, log, env = {}) {
  const child = spawn(program, given, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  const file = createWriteStream(log);
  child.stdout.pipe(file, { end: false });
  child.stderr.pipe(file, { end: false });
  await new Promise((resolve, reject) => child.once("spawn", resolve).once("error", reject));
  return child;
}

async function stop(child) {
  if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await gone;
  clearTimeout(timer);
}

/**
 * `duologue serve`, once it has said `ready`.
 * @param {string[]} given more arguments
 * @param {{env?: object, ready?: string, host?: string, scheme?: string}} options
 */
export async function duologue(given, { env = {}, ready = "Duologue is ready", host = "127.0.0.1", scheme = "http" } = {}) {
  const folder = await mkdtemp(join(tmpdir(), "duologue-served-"));
  const log = join(folder, "duologue.log");
  const port = await freePort();
  // A slow machine may lend its own models: DUOLOGUE_SERVE_ARGS="--llm-url ... --llm-model ...".
  const lent = (process.env.DUOLOGUE_SERVE_ARGS ?? "").split(" ").filter(Boolean);
  const child = await start(programs.duologue, ["serve", "--listen", `${host}:${port}`, ...given, ...lent], log, env);
  try {
    const told = async () => (await readFile(log, "utf8")).includes(ready);
    await until(async () => child.exitCode !== null || (await told()), 120_000, `${ready} (${log})`);
    if (!(await told())) throw new Error(await readFile(log, "utf8"));
    return { port, url: `${scheme}://${host}:${port}/`, log, stop: () => stop(child), kill: () => child.kill("SIGKILL") };
  } catch (error) {
    await stop(child);
    throw error;
  }
}

/** A TURN server on loopback. */
export async function turnServer() {
  const folder = await mkdtemp(join(tmpdir(), "duologue-turn-"));
  const port = await freeUdpPort();
  const given = ["-public-ip", "127.0.0.1", "-port", String(port), "-users", "ada=lovelace", "-realm", "example.org"];
  const child = await start(programs.turn, given, join(folder, "turn.log"));
  return { iceServer: `turn:ada:lovelace@127.0.0.1:${port}`, stop: () => stop(child) };
}

/** A LiveKit server, and what a Duologue needs to take its rooms. */
export async function liveKitServer() {
  const folder = await mkdtemp(join(tmpdir(), "duologue-livekit-"));
  const port = await freePort();
  // YAML takes JSON.
  const config = {
    port,
    bind_addresses: ["127.0.0.1"],
    rtc: { udp_port: await freeUdpPort(), tcp_port: 0, use_external_ip: false, node_ip: "127.0.0.1", enable_loopback_candidate: true, interfaces: { includes: ["lo"] } },
    keys: { [KEY]: SECRET },
  };
  await writeFile(join(folder, "livekit.yaml"), JSON.stringify(config));
  const livekit = await start(programs.livekit, ["--config", join(folder, "livekit.yaml")], join(folder, "livekit.log"));
  try {
    await until(async () => (await fetch(`http://127.0.0.1:${port}/`)).ok, 30_000, "the LiveKit server answers");
  } catch (error) {
    await stop(livekit);
    throw error;
  }
  const taker = { env: { LIVEKIT_API_KEY: KEY, LIVEKIT_API_SECRET: SECRET }, ready: "rooms of LiveKit are taken" };
  return { given: ["--livekit", `ws://127.0.0.1:${port}`], taker, stop: () => stop(livekit) };
}

/** A LiveKit server and a Duologue that takes its rooms. */
export async function liveKitRoom() {
  const livekit = await liveKitServer();
  try {
    const served = await duologue([...livekit.given, "--asr", "whisper-tiny.en"], livekit.taker);
    const end = async () => {
      await served.stop();
      await livekit.stop();
    };
    return { url: served.url, stop: end };
  } catch (error) {
    await livekit.stop();
    throw error;
  }
}

/** Redis that keeps nothing on the disk. */
export async function redisServer() {
  const folder = await mkdtemp(join(tmpdir(), "duologue-redis-"));
  const port = await freePort();
  const log = join(folder, "redis.log");
  const child = await start("redis-server", ["--bind", "127.0.0.1", "--port", String(port), "--save", "", "--appendonly", "no"], log);
  await until(async () => (await readFile(log, "utf8")).includes("Ready to accept"), 30_000, "Redis answers");
  return { url: `redis://127.0.0.1:${port}`, stop: () => stop(child) };
}
