import assert from "node:assert/strict";
import test from "node:test";
import { NO_OPINION, choose, configured, eligible } from "./my-plugin.js";

const never = () => false;

test("options are checked by name", () => {
  assert.equal(configured("{}").by, "inflight");
  assert.equal(configured('{"by":"latency"}').by, "latency");
  assert.throws(() => configured('{"bye":"latency"}'), /unknown field `bye`, expected `by`/);
  assert.throws(() => configured('{"by":"weight"}'), /`by` is `weight`: it must be `inflight` or `latency`/);
});

test("weight 0 is left out unless all are 0", () => {
  const weights = (...list) => eligible(list.map((weight) => ({ weight })));
  assert.deepEqual(weights(0, 3, 0, 1), [1, 3]);
  assert.deepEqual(weights(0, 0), [0, 1]);
  assert.deepEqual(weights(), []);
});

test("the less loaded of two is picked", () => {
  const load = (index) => [5, 4, 9][index];
  for (let i = 0; i < 16; i++) assert.equal(choose([0, 1], (i / 16) * 2 ** 64, load, never), 1);
  const seen = new Set(Array.from({ length: 64 }, (_, i) => choose([0, 1, 2], (i / 64) * 2 ** 64, () => 0, never)));
  assert.deepEqual([...seen].sort(), [0, 1, 2], "where all are alike each has its turn");
  assert.ok([0, 1].includes(choose([0, 1], 2 ** 64, load, never)), "the largest u64 is rounded up");
});

test("a retry goes elsewhere, and nothing to pick is no opinion", () => {
  assert.equal(choose([4, 5], 0, () => 0, (index) => index === 4), 5);
  assert.equal(choose([4], 0, () => 0, () => true), NO_OPINION);
  assert.equal(choose([], 0, () => 0, never), NO_OPINION);
});
