import assert from "node:assert/strict";
import test from "node:test";
import { configured } from "./response-headers.js";

/** These options are refused in these words. */
function refused(options: unknown, message: string): void {
  assert.throws(() => configured(JSON.stringify(options)), { message });
}

test("headers that HTTP allows are taken as they are", () => {
  const options = { set: { "x-frame-options": "DENY", "x-empty": "" }, remove: ["Server"] };
  const expected = { set: [["x-frame-options", "DENY"], ["x-empty", ""]], remove: ["Server"] };
  assert.deepEqual(configured(JSON.stringify(options)), expected);
  assert.deepEqual(configured('{"remove":["server"]}'), { set: [], remove: ["server"] });
});

test("mistakes are named", () => {
  refused({}, "there is nothing to `set` and nothing to `remove`");
  refused({ sets: {} }, "unknown field `sets`, expected `set` or `remove`");
  refused({ set: [] }, "`set` must be a table of names and values");
  refused({ remove: "server" }, "`remove` must be a list of names");
  refused({ set: { "a b": "c" } }, "`set` has `a b`, which is no header's name");
  refused({ set: { a: 1 } }, "`set.a` must be a text");
  refused({ set: { a: "b\r\nc: d" } }, "`set.a` has a line break or another control character in it");
  refused({ remove: ["Connection"] }, "`remove` has `Connection`, a header that the gateway itself answers for");
});
