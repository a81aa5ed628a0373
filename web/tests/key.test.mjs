import assert from "node:assert/strict";
import { test } from "node:test";
import { failureOf } from "../connection.js";
import { isKey, keyIn, protocols, storedKey, useKey, withKey } from "../key.js";
import { connectionProblem } from "../problems.js";

function storage() {
  const kept = new Map();
  return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value), removeItem: (name) => kept.delete(name) };
}

test("a key is taken out of the address, and the rest of it stays", () => {
  assert.deepEqual(keyIn("https://box/?transport=websocket#key=ek_a.b-c"), { key: "ek_a.b-c", rest: "https://box/?transport=websocket" });
  assert.deepEqual(keyIn("https://box/#a=1&key=k"), { key: "k", rest: "https://box/#a=1" });
  assert.deepEqual(keyIn("https://box/#key="), { key: null, rest: "https://box/" });
  assert.deepEqual(keyIn("https://box/?key=k"), { key: null, rest: "https://box/?key=k" });
});

test("requests and WebSockets carry the key, and nothing where there is none", () => {
  const kept = storage();
  assert.deepEqual([withKey({ A: "1" }), protocols()], [{ A: "1" }, []]);
  useKey("abc", kept);
  assert.deepEqual(withKey({ A: "1" }), { A: "1", Authorization: "Bearer abc" });
  assert.deepEqual(protocols(), ["realtime", "openai-insecure-api-key.abc"]);
  assert.equal(storedKey(kept), "abc");
  useKey(null, kept);
  assert.deepEqual([withKey(), protocols(), storedKey(kept)], [{}, [], null]);
});

test("what no WebSocket can carry is no key", () => {
  assert.ok(isKey("ek_eyJ.-_~") && isKey("sk-0123"));
  for (const text of ["", "a b", "a,b", "a=", "ä", "a/b", "a".repeat(20_000)]) assert.ok(!isKey(text), text.slice(0, 20));
});

test("a refused key is not tried again, and is told with what to do", () => {
  const failure = failureOf({ opened: false, code: 1006, reason: "" }, { status: 401, retryAfter: null });
  assert.deepEqual(failure, { kind: "locked", retryAfter: null, final: true });
  assert.match(connectionProblem(failure, null), /key/);
});
