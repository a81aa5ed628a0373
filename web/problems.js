// What went wrong, and what to do about it, in plain words.

/** Why the microphone cannot be used, before asking for it; null if it can be asked for. */
export function microphoneObstacle({ secure, mediaDevices, worklet }) {
  if (!secure) {
    return "Browsers only lend the microphone to secure pages. Open this page over https, or on the machine itself as http://localhost. Typing works here as it is.";
  }
  if (!mediaDevices || !worklet) {
    return "This browser cannot record sound for a page. Use a current Firefox, Chrome, Edge or Safari; typing works here as it is.";
  }
  return null;
}

/** Why sound could not be opened. @param {string} name of the error: `getUserMedia`'s, or `NoOutput` */
export function microphoneRefused(name) {
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return "The microphone is blocked for this page. Allow it in the browser's address bar (and in the system's privacy settings), then press Talk again. Or type instead.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No microphone was found. Plug one in or switch it on, then press Talk again. Or type instead.";
    case "NotReadableError":
    case "AbortError":
      return "The microphone is there but does not answer; another program may be using it. Close that program, then press Talk again.";
    case "NoOutput":
      return "The browser found nothing to play sound on. Connect a speaker or headphones, then press Talk again.";
    default:
      return `The microphone could not be opened (${name}). Press Talk to try again, or type instead.`;
  }
}

const COULD_NOT = { livekit: "a LiveKit room could not be used", webrtc: "a WebRTC call could not be made" };

/**
 * What was tried first did not work, and something else is used.
 * @param {"webrtc"|"websocket"} way that is used
 * @param {Map<string, string>} failed ways, and why
 */
export function fellBack(way, failed) {
  const reasons = [...failed].map(([each, why]) => `${COULD_NOT[each]} (${why})`).join(", and ");
  const used = way === "websocket" ? "over a WebSocket, which reacts a little later" : "with this server itself over WebRTC";
  return `Talking ${used}: ${reasons}.`;
}

/** One way did not work, and no other was allowed. */
export function wayRefused(way, why) {
  const could = COULD_NOT[way];
  return `${could[0].toUpperCase()}${could.slice(1)} (${why}). Press Talk to try again, or open the page without ?transport=${way}.`;
}

/** The connection is back, and the server knows what was said. */
export const GOES_ON = "The connection is back, and the conversation goes on.";

/** The server asks for a key, and there is none yet. */
export const KEY_ASKED = "This server asks for a key. Whoever runs it can give you one, or a link with one.";

/** There is a key, and it is not good. */
export const KEY_REFUSED = "The server does not accept this key: it is not one of its own, or its time is over. Enter another below.";

/** It could not be one. */
export const NO_KEY = "That cannot be a key: a key has no spaces and no accented letters.";

/** The microphone went away during a conversation. */
export const MICROPHONE_LOST =
  "The microphone was unplugged or taken away. Connect it and press Talk again; typing still works.";

/**
 * Why there is no connection.
 * @param {{kind: "unreachable"|"full"|"lost"|"refused"|"locked"|"ended"|"offline", detail?: string}} failure
 * @param {number|null} seconds until the next try, or null when none is planned
 */
export function connectionProblem({ kind, detail }, seconds) {
  const again = seconds === null ? "Press Talk to try again." : `Trying again ${inSeconds(seconds)}.`;
  switch (kind) {
    case "offline":
      return "This device is offline. The conversation goes on when the network is back.";
    case "full":
      return `The server is full: every place is taken. ${again}`;
    case "lost":
      return `The connection was lost. ${again} What was said so far is kept.`;
    case "refused":
      return `The server refused the conversation${detail ? ` (${detail})` : ""}. ${again}`;
    case "locked":
      return KEY_REFUSED;
    case "ended":
      return `The server ended the conversation${detail ? ` (${detail})` : ""}. Press Talk to start another.`;
    default:
      return `The server does not answer. Is "duologue serve" still running? ${again}`;
  }
}

function inSeconds(seconds) {
  const whole = Math.max(1, Math.ceil(seconds));
  return whole === 1 ? "in a second" : `in ${whole} seconds`;
}
