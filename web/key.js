// The key that a server may ask for (docs/access.md), for as long as the tab is open.
//
// It comes from the address (`#key=…`, which browsers send to nobody, and which is taken out of it at
// once) or is typed in. It may be an API key or a client secret.

const STORED = "duologue.key";
const PROTOCOL = "openai-insecure-api-key.";

let key = null;

/**
 * Takes a key out of an address.
 * @returns {{key: string|null, rest: string}} `rest`: the address without it
 */
export function keyIn(address) {
  const url = new URL(address);
  const said = new URLSearchParams(url.hash.slice(1));
  const given = said.get("key");
  if (given === null) return { key: null, rest: address };
  said.delete("key");
  url.hash = said.toString();
  return { key: given.trim() || null, rest: url.href.replace(/#$/, "") };
}

/** Whether a WebSocket can carry it: its name is that of a subprotocol. */
export function isKey(text) {
  return /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,16384}$/.test(text);
}

/** The key from now on; null is none. Storage may be refused: it then lasts as long as the page. */
export function useKey(given, storage = globalThis.sessionStorage) {
  key = given;
  try {
    if (given === null) storage?.removeItem(STORED);
    else storage?.setItem(STORED, given);
  } catch {
    // as said
  }
}

/** The key of this tab's last page. */
export function storedKey(storage = globalThis.sessionStorage) {
  try {
    return storage?.getItem(STORED) ?? null;
  } catch {
    return null;
  }
}

/** Headers of a request, with the key if there is one. */
export function withKey(headers = {}) {
  return key === null ? headers : { ...headers, Authorization: `Bearer ${key}` };
}

/** Subprotocols of a WebSocket, which can carry no header. */
export function protocols() {
  return key === null ? [] : ["realtime", PROTOCOL + key];
}
