// The WebSocket to the server, kept up.
//
// `retryDelay` and `failureOf` decide; the class only carries out. It reports what happens
// through the callbacks it was given and never touches the conversation itself.

import { protocols, withKey } from "./key.js";
import { resuming } from "./resume.js";

// Beyond this much unsent audio (about 8 s) the network is not keeping up: newer audio is
// dropped rather than arriving long after it was said.
const MOST_UNSENT_BYTES = 512 * 1024;

/** Seconds to wait before the n-th try in a row (from 0): doubling from 0.5 to 15, spread by ±25 %. */
export function retryDelay(attempt, random) {
  const base = Math.min(15, 0.5 * 2 ** Math.min(attempt, 10));
  return base * (0.75 + 0.5 * random);
}

/**
 * What a closed connection means.
 * @param {{opened: boolean, code: number, reason: string}} close
 * @param {{status: number, retryAfter: number|null}|null} probe what a plain request to the same
 *   address said; null when nothing answered
 * @returns {{kind: string, detail?: string, retryAfter: number|null, final: boolean}}
 */
export function failureOf({ opened, code, reason }, probe) {
  if (code === 1000) return { kind: "ended", detail: reason, retryAfter: null, final: true };
  if (code === 1008) return { kind: "refused", detail: reason, retryAfter: null, final: true };
  if (code === 1013) {
    const told = /retry_after=(\d+)/.exec(reason);
    return { kind: "full", retryAfter: told ? Number(told[1]) : null, final: false };
  }
  if (opened) return { kind: "lost", retryAfter: null, final: false };
  if (probe === null) return { kind: "unreachable", retryAfter: null, final: false };
  if (probe.status === 503 || probe.status === 429) {
    return { kind: "full", retryAfter: probe.retryAfter, final: false };
  }
  if (probe.status === 401) return { kind: "locked", retryAfter: null, final: true };
  return { kind: "refused", detail: `HTTP ${probe.status}`, retryAfter: null, final: false };
}

export class Connection {
  /**
   * @param {object} on `connecting()`, `open()`, `event(object)`, `waiting(failure, seconds)`,
   *   `closed(failure)`
   */
  constructor(on) {
    this.on = on;
    this.socket = null;
    this.attempt = 0;
    this.timer = null;
    this.address = null;
    this.token = null; // of the conversation to go on with
    this.dropped = 0; // pieces of audio not sent
    addEventListener("online", () => {
      if (this.timer !== null) this.#try();
    });
  }

  open(address) {
    this.close();
    this.address = address;
    this.attempt = 0;
    this.#try();
  }

  /** Ends it for good; nothing is reported. */
  close() {
    clearTimeout(this.timer);
    this.timer = null;
    this.address = null;
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
  }

  /** Sends an event if there is a connection; says whether it did. */
  send(event) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    const audio = event.type === "input_audio_buffer.append";
    if (audio && this.socket.bufferedAmount > MOST_UNSENT_BYTES) {
      this.dropped++;
      return false;
    }
    this.socket.send(JSON.stringify(event));
    return true;
  }

  #try() {
    clearTimeout(this.timer);
    this.timer = null;
    this.on.connecting();
    const socket = new WebSocket(resuming(this.address, this.token), protocols());
    let opened = false;
    this.socket = socket;
    socket.onopen = () => {
      if (socket !== this.socket) return;
      opened = true;
      this.attempt = 0;
      this.on.open();
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket || typeof data !== "string") return;
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        console.warn("A message of the server was not JSON and was left out.");
        return;
      }
      this.on.event(event);
    };
    socket.onclose = async ({ code, reason }) => {
      if (socket !== this.socket) return;
      this.socket = null;
      const address = this.address;
      const probe = opened ? null : await this.#probe();
      if (address !== this.address || this.socket !== null) return; // hung up, or begun anew
      const failure = failureOf({ opened, code, reason }, probe);
      if (failure.final) {
        this.address = null;
        this.on.closed(failure);
        return;
      }
      const offline = navigator.onLine === false;
      const seconds = failure.retryAfter ?? retryDelay(this.attempt++, Math.random());
      this.timer = setTimeout(() => this.#try(), seconds * 1000);
      this.on.waiting(offline ? { kind: "offline" } : failure, seconds);
    };
  }

  // A page is not told why its WebSocket was refused; a plain request to the same address is.
  async #probe() {
    const url = new URL(resuming(this.address, this.token));
    url.protocol = url.protocol === "wss:" ? "https:" : "http:";
    try {
      const answer = await fetch(url, { headers: withKey(), cache: "no-store", signal: AbortSignal.timeout(4000) });
      const after = Number(answer.headers.get("Retry-After"));
      return { status: answer.status, retryAfter: after > 0 ? after : null };
    } catch {
      return null;
    }
  }
}
