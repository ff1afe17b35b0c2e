import assert from "node:assert/strict";
import test from "node:test";
import { configured } from "./my-plugin.js";

/** These options are refused in these words. */
function refused(options, words) {
  assert.throws(() => configured(JSON.stringify(options)), words);
}

test("a header that HTTP allows is taken as it is", () => {
  assert.deepEqual(configured('{"name":"x-env","value":"say \\"hi\\"\\t"}'), { name: "x-env", value: 'say "hi"\t' });
  assert.deepEqual(configured('{"name":"x-empty","value":""}'), { name: "x-empty", value: "" });
});

test("mistakes are named", () => {
  refused({}, /`name` must be/);
  refused({ name: "x y", value: "a" }, /`name` must be/);
  refused({ name: "Content-Length", value: "1" }, /gateway itself/);
  refused({ name: "x" }, /`value` must be a text/);
  refused({ name: "x", value: 1 }, /`value` must be a text/);
  refused({ name: "x", value: "a\r\nb: c" }, /control character/);
  refused({ nme: "x" }, /unknown field `nme`/);
});
