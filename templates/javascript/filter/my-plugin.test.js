import assert from "node:assert/strict";
import test from "node:test";
import { configured } from "./my-plugin.js";

/** The error of these options, which is a string: what an operator is shown. */
function error(options) {
  try {
    configured(JSON.stringify(options));
  } catch (thrown) {
    return thrown;
  }
}

test("a header that HTTP allows is taken as it is", () => {
  assert.deepEqual(configured('{"name":"x-env","value":"say \\"hi\\"\\t"}'), { name: "x-env", value: 'say "hi"\t' });
  assert.deepEqual(configured('{"name":"x-empty","value":""}'), { name: "x-empty", value: "" });
});

test("mistakes are named", () => {
  assert.match(error({}), /^`name` must be/);
  assert.match(error({ name: "x y", value: "a" }), /^`name` must be/);
  assert.match(error({ name: "Content-Length", value: "1" }), /gateway itself/);
  assert.match(error({ name: "x" }), /^`value` must be a text/);
  assert.match(error({ name: "x", value: 1 }), /^`value` must be a text/);
  assert.match(error({ name: "x", value: "a\r\nb: c" }), /control character/);
  assert.match(error({ nme: "x" }), /unknown field `nme`/);
});
