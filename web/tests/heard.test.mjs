import assert from "node:assert/strict";
import { test } from "node:test";
import { addText, cutAt, heardLength, spokenItem } from "../heard.js";

const FIRST = "The sky is blue. ";
const SECOND = "It scatters light.";

function spoken(...clauses) {
  let item = spokenItem();
  for (const [text, ms] of clauses) {
    item = { ...item, ...addText(item, text) };
    item.audioMs += ms;
  }
  return item;
}

test("a clause's text begins where its audio begins", () => {
  const item = spoken([FIRST, 1000], [SECOND, 1200]);
  assert.deepEqual(item.marks, [{ at: 0, ms: 0 }, { at: FIRST.length, ms: 1000 }]);
  assert.equal(item.text.slice(0, heardLength(item, 1000)).trim(), FIRST.trim());
});

test("text that comes word by word before its audio is one clause", () => {
  let item = spokenItem();
  for (const word of ["The ", "sky ", "is ", "blue."]) item = { ...item, ...addText(item, word) };
  assert.equal(item.marks.length, 1);
});

test("what is heard ends with a whole word and never goes back", () => {
  const item = { ...spoken([FIRST, 1000], [SECOND, 1200]), audioDone: true };
  let before = 0;
  for (let ms = 0; ms <= 2300; ms += 10) {
    const length = heardLength(item, ms);
    assert.ok(length >= before);
    const around = item.text.slice(length - 1, length + 1);
    assert.ok(length === 0 || length === item.text.length || /\s/.test(around), `${ms} ms: ${length}`);
    before = length;
  }
  assert.equal(before, item.text.length);
});

test("nothing is heard before the first sample", () => {
  assert.equal(heardLength(spoken([FIRST, 300]), 0), 0);
  assert.equal(heardLength(spokenItem(), 500), 0);
});

test("a clause whose audio is still coming is not taken to be over", () => {
  const item = spoken([FIRST, 200]);
  assert.ok(heardLength(item, 200) < FIRST.length - 5);
});

test("the server's word on what was heard wins over the clock", () => {
  const item = spoken([FIRST, 1000], [SECOND, 1200]);
  assert.equal(item.text.slice(0, cutAt(item, 100, "The sky is")), "The sky is");
  assert.equal(cutAt(item, 2000, ""), 0);
});

test("white space does not matter to what was heard, other words do", () => {
  const item = spoken([FIRST, 1000], [SECOND, 1200]);
  assert.equal(item.text.slice(0, cutAt(item, 0, "The  sky\nis blue. It")), "The sky is blue. It");
  assert.equal(cutAt(item, 1000, "Something else"), heardLength(item, 1000));
});
