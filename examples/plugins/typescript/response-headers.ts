// Sets and removes headers of responses.

/** What is set, by name, and what is removed before. */
export interface Options {
  set: [name: string, value: string][];
  remove: string[];
}

/** RFC 9110, 5.6.2: what a header's name is made of. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** RFC 9110, 5.5: no line breaks and no other control characters but tabs. */
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/;
/** What the gateway answers for itself, and so does not let a plugin write. */
const RESERVED = ["connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

/** The options: `set`, a table of names and values, and `remove`, a list of names. At least one of them is needed. */
export function configured(json: string): Options {
  const { set = {}, remove = [], ...others } = JSON.parse(json) as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw new Error(`unknown field \`${unknown}\`, expected \`set\` or \`remove\``);
  if (typeof set !== "object" || set === null || Array.isArray(set)) throw new Error("`set` must be a table of names and values");
  if (!Array.isArray(remove)) throw new Error("`remove` must be a list of names");
  const values = Object.entries(set);
  for (const [name, value] of values) {
    writable("set", name);
    if (typeof value !== "string") throw new Error(`\`set.${name}\` must be a text`);
    if (CONTROL.test(value)) throw new Error(`\`set.${name}\` has a line break or another control character in it`);
  }
  for (const name of remove) writable("remove", name);
  if (values.length + remove.length === 0) throw new Error("there is nothing to `set` and nothing to `remove`");
  return { set: values, remove };
}

function writable(key: string, name: unknown): void {
  if (typeof name !== "string" || !TOKEN.test(name)) throw new Error(`\`${key}\` has \`${name}\`, which is no header's name`);
  if (RESERVED.includes(name.toLowerCase())) throw new Error(`\`${key}\` has \`${name}\`, a header that the gateway itself answers for`);
}
