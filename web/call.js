// A call: the conversation over WebRTC, its events on a data channel, its sound beside them.
//
// It offers what `Connection` offers, so that the page need not know which of them it has. Where a
// call cannot be had within a few seconds it says so (`unavailable`) and the page takes a
// WebSocket; a call that was there and is lost is mended by an ICE restart, or begun anew.

import { retryDelay } from "./connection.js";
import { withKey } from "./key.js";
import { resuming } from "./resume.js";

const CONNECT_MS = 5000;
const MEND_MS = 3000; // an interruption that is shorter mends itself
const GIVE_UP_MS = 20000;
const STATISTICS_MS = 1000;

/** The way sound takes from the server to the ear, ms, from two readings of a receiver's statistics. */
export function wayOf(before, after, roundTripMs, outputMs) {
  const emitted = (after?.jitterBufferEmittedCount ?? 0) - (before?.jitterBufferEmittedCount ?? 0);
  const waited = (after?.jitterBufferDelay ?? 0) - (before?.jitterBufferDelay ?? 0);
  if (!(emitted > 0) || !(waited >= 0)) return null;
  return Math.min(1000, roundTripMs / 2 + (waited / emitted) * 1000 + outputMs);
}

export class Call {
  /**
   * @param {object} on as of `Connection`, and `sound(MediaStream)` of the server's voice,
   *   `unavailable(why)` when there can be no call, `way(ms)` that sound takes to the ear
   */
  constructor(on) {
    this.on = on;
    this.peer = null;
    this.channel = null;
    this.address = null;
    this.location = null;
    this.track = null;
    this.outputMs = 0;
    this.attempt = 0;
    this.tries = 0;
    this.ended = null; // why the server ended it
    this.token = null; // of the conversation to go on with
    this.timers = new Set();
  }

  open(address) {
    this.close();
    this.address = address;
    this.attempt = 0;
    this.#try();
  }

  /** Ends it for good; nothing is reported. */
  close() {
    this.address = null;
    this.#drop(true);
  }

  /** The microphone, or null. */
  async microphone(track) {
    this.track = track;
    await this.peer?.getSenders()[0]?.replaceTrack(track).catch(() => {});
  }

  /** Sends an event if there is a connection; says whether it did. */
  send(event) {
    if (this.channel?.readyState !== "open") return false;
    this.channel.send(JSON.stringify(event));
    return true;
  }

  async #try() {
    this.on.connecting();
    this.ended = null;
    const number = ++this.tries;
    const servers = await iceServers(this.address);
    if (number !== this.tries || this.address === null) return; // hung up, or begun anew
    let peer;
    try {
      peer = new RTCPeerConnection({ iceServers: servers });
    } catch (error) {
      this.on.unavailable(error.message);
      return;
    }
    const current = () => peer === this.peer;
    this.peer = peer;
    const transceiver = peer.addTransceiver("audio", { direction: "sendrecv" });
    if (this.track !== null) await transceiver.sender.replaceTrack(this.track);
    peer.ontrack = ({ streams, track }) => {
      if (current()) this.on.sound(streams[0] ?? new MediaStream([track]));
    };
    const channel = peer.createDataChannel("oai-events");
    this.channel = channel;
    let opened = false;
    channel.onopen = () => {
      if (!current()) return;
      opened = true;
      this.attempt = 0;
      this.on.open();
      this.#measure(peer);
    };
    channel.onmessage = ({ data }) => {
      if (!current() || typeof data !== "string") return;
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        console.warn("A message of the server was not JSON and was left out.");
        return;
      }
      // Another server may go on with it.
      if (event.type === "duologue.ended" && event.reason !== "shutdown") this.ended = event.reason;
      this.on.event(event);
    };
    channel.onclose = () => {
      if (current() && opened) this.#lost();
    };
    peer.oniceconnectionstatechange = () => {
      if (!current() || !opened) return;
      const state = peer.iceConnectionState;
      if (state === "failed") this.#mend();
      else if (state === "disconnected") this.#after(MEND_MS, () => this.#mendIfNeeded(peer));
    };
    this.#after(CONNECT_MS, () => {
      if (!current() || opened) return;
      this.#drop(true);
      this.on.unavailable("it did not connect; the network may block UDP");
    });
    try {
      await peer.setLocalDescription();
      const answer = await fetch(resuming(this.address, this.token), {
        method: "POST",
        headers: withKey({ "Content-Type": "application/sdp" }),
        body: peer.localDescription.sdp,
      });
      if (!current()) return;
      if (answer.status === 503 || answer.status === 429) {
        this.#drop(false);
        const after = Number(answer.headers.get("Retry-After"));
        this.#again({ kind: "full" }, after > 0 ? after : null);
        return;
      }
      if (answer.status === 401) {
        this.close();
        this.on.closed({ kind: "locked" });
        return;
      }
      if (answer.status !== 201) {
        this.#drop(false);
        const { error } = await answer.json().catch(() => ({}));
        this.on.unavailable(error?.message ?? `HTTP ${answer.status}`);
        return;
      }
      this.location = new URL(answer.headers.get("Location"), this.address).href;
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    } catch (error) {
      if (!current()) return;
      this.#drop(true);
      if (error instanceof TypeError) this.#again({ kind: "unreachable" }, null);
      else this.on.unavailable(error.message);
    }
  }

  #mendIfNeeded(peer) {
    if (peer === this.peer && peer.iceConnectionState === "disconnected") this.#mend();
  }

  // Other candidates for the same call: the conversation stays.
  async #mend() {
    const { peer, location } = this;
    this.#after(GIVE_UP_MS, () => {
      const state = peer === this.peer ? peer.iceConnectionState : "connected";
      if (state !== "connected" && state !== "completed") this.#lost();
    });
    try {
      await peer.setLocalDescription(await peer.createOffer({ iceRestart: true }));
      const answer = await fetch(location, {
        method: "POST",
        headers: withKey({ "Content-Type": "application/sdp" }),
        body: peer.localDescription.sdp,
      });
      if (peer !== this.peer) return;
      if (answer.status === 404) {
        this.#lost();
        return;
      }
      await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    } catch {
      // No network: it is tried again until it is given up.
      this.#after(MEND_MS, () => this.#mendIfNeeded(peer));
    }
  }

  #lost() {
    this.#drop(true);
    if (this.ended !== null) {
      const reason = this.ended;
      this.address = null;
      this.on.closed({ kind: "ended", detail: reason.replaceAll("_", " ") });
      return;
    }
    this.#again({ kind: navigator.onLine === false ? "offline" : "lost" }, null);
  }

  #again(failure, after) {
    const seconds = after ?? retryDelay(this.attempt++, Math.random());
    this.#after(seconds * 1000, () => this.#try());
    this.on.waiting(failure, seconds);
  }

  async #measure(peer) {
    let before = null;
    while (peer === this.peer) {
      const report = await peer.getStats().catch(() => []);
      let after = null;
      let roundTrip = 0;
      report.forEach((entry) => {
        if (entry.type === "inbound-rtp" && entry.kind === "audio") after = entry;
        if (entry.type === "candidate-pair" && entry.nominated) roundTrip = (entry.currentRoundTripTime ?? 0) * 1000;
      });
      const way = wayOf(before, after, roundTrip, this.outputMs);
      if (way !== null) this.on.way(way);
      before = after;
      await new Promise((resolve) => setTimeout(resolve, STATISTICS_MS));
    }
  }

  #after(ms, task) {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      task();
    }, ms);
    this.timers.add(timer);
  }

  #drop(tell) {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers.clear();
    const { peer, location } = this;
    this.peer = null;
    this.channel = null;
    this.location = null;
    peer?.close();
    // The server would find out by itself, later.
    if (tell && location !== null) fetch(location, { method: "DELETE", headers: withKey(), keepalive: true }).catch(() => {});
  }
}

async function iceServers(address) {
  try {
    const answer = await fetch(new URL("ice_servers", address), { headers: withKey(), signal: AbortSignal.timeout(2000) });
    const { ice_servers: servers } = await answer.json();
    return Array.isArray(servers) ? servers : [];
  } catch {
    return []; // the call itself will tell what is wrong
  }
}
