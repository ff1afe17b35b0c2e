// Sets a header on each request and each response of its route.

/** RFC 9110, 5.6.2: what a header's name is made of. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** RFC 9110, 5.5: no line breaks and no other control characters but tabs. */
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;
/** What the gateway answers for itself, and so does not let a plugin write. */
const RESERVED = ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/** The options: `name` and `value` of the header; both are needed. */
export function configured(json) {
  const { name, value, ...others } = JSON.parse(json);
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw new Error(`unknown field \`${unknown}\`, expected \`name\` or \`value\``);
  if (typeof name !== "string" || !TOKEN.test(name)) throw new Error("`name` must be a header's name, such as `x-env`");
  if (RESERVED.includes(name.toLowerCase())) throw new Error("`name` is a header that the gateway itself answers for");
  if (typeof value !== "string") throw new Error("`value` must be a text: what is the header to be?");
  if (CONTROL.test(value)) throw new Error("`value` has a line break or another control character in it");
  return { name, value };
}
