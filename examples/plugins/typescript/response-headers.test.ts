import assert from "node:assert/strict";
import test from "node:test";
import { configured } from "./response-headers.js";

/** The error of these options, which is a string: what an operator is shown. */
function error(options: unknown): unknown {
  try {
    configured(JSON.stringify(options));
  } catch (thrown) {
    return thrown;
  }
}

test("headers that HTTP allows are taken as they are", () => {
  const options = { set: { "x-frame-options": "DENY", "x-empty": "" }, remove: ["Server"] };
  const expected = { set: [["x-frame-options", "DENY"], ["x-empty", ""]], remove: ["Server"] };
  assert.deepEqual(configured(JSON.stringify(options)), expected);
  assert.deepEqual(configured('{"remove":["server"]}'), { set: [], remove: ["server"] });
});

test("mistakes are named", () => {
  assert.equal(error({}), "there is nothing to `set` and nothing to `remove`");
  assert.equal(error({ sets: {} }), "unknown field `sets`, expected `set` or `remove`");
  assert.equal(error({ set: [] }), "`set` must be a table of names and values");
  assert.equal(error({ remove: "server" }), "`remove` must be a list of names");
  assert.equal(error({ set: { "a b": "c" } }), "`set` has `a b`, which is no header's name");
  assert.equal(error({ set: { a: 1 } }), "`set.a` must be a text");
  assert.equal(error({ set: { a: "b\r\nc: d" } }), "`set.a` has a line break or another control character in it");
  assert.equal(error({ remove: ["Connection"] }), "`remove` has `Connection`, a header that the gateway itself answers for");
});
