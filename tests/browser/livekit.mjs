// The real LiveKit server and a Duologue that talks at it, both on loopback.

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
export const programs = { livekit: process.env.LIVEKIT_SERVER, duologue: process.env.DUOLOGUE_BIN };

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
  if (child === undefined || child.exitCode !== null) return;
  const gone = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
  await gone;
  clearTimeout(timer);
}

/** @param {string[]} more arguments of `duologue serve` */
export async function liveKitRoom(more = []) {
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
  let duologue;
  const end = async () => {
    await stop(duologue);
    await stop(livekit);
  };
  try {
    await until(async () => (await fetch(`http://127.0.0.1:${port}/`)).ok, 30_000, "the LiveKit server answers");
    const listen = `127.0.0.1:${await freePort()}`;
    const log = join(folder, "duologue.log");
    const given = ["serve", "--listen", listen, "--livekit", `ws://127.0.0.1:${port}`, "--asr", "whisper-tiny.en", ...more];
    // A slow machine may lend its own models: DUOLOGUE_SERVE_ARGS="--llm-url ... --llm-model ...".
    const lent = (process.env.DUOLOGUE_SERVE_ARGS ?? "").split(" ").filter(Boolean);
    duologue = await start(programs.duologue, [...given, ...lent], log, { LIVEKIT_API_KEY: KEY, LIVEKIT_API_SECRET: SECRET });
    const registered = async () => {
      if (duologue.exitCode !== null) throw new Error(await readFile(log, "utf8"));
      return (await readFile(log, "utf8")).includes("rooms of LiveKit are taken");
    };
    await until(registered, 120_000, `Duologue takes rooms (${log})`);
    return { url: `http://${listen}/`, stop: end, kill: () => livekit.kill("SIGKILL") };
  } catch (error) {
    await end();
    throw error;
  }
}
