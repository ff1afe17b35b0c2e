// Of two endpoints taken at random, the one that is less loaded (Mitzenmacher, "The Power of Two Choices in Randomized
// Load Balancing", 2001): nearly as even as asking all of them, and without the herd that runs to the same one.

/** "No opinion": the gateway picks, round robin. The bits of 0xffffffff, which QuickJS cannot return as such. */
export const NO_OPINION = -1;

/** The options: `by` is what load means, "inflight" (requests in flight) or "latency" (mean time to the head). */
export function configured(json) {
  const { by = "inflight", ...others } = JSON.parse(json);
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) throw new Error(`unknown field \`${unknown}\`, expected \`by\``);
  if (by !== "inflight" && by !== "latency") throw new Error(`\`by\` is \`${by}\`: it must be \`inflight\` or \`latency\``);
  return { by };
}

/** The indices of the endpoints that may be picked: weight 0 means only where every endpoint has 0. */
export function eligible(endpoints) {
  const all = endpoints.map((_, index) => index);
  const weighted = all.filter((index) => endpoints[index].weight > 0);
  return weighted.length > 0 ? weighted : all;
}

/** The index to pick; a retry (`tried`) goes elsewhere. */
export function choose(choices, random, load, tried) {
  const left = choices.filter((index) => !tried(index));
  if (left.length < 2) return left[0] ?? NO_OPINION;
  // A u64 as a double has lost its lowest bits: `%` would see zeros. The fraction left over serves for the second.
  const place = Math.min(random / 2 ** 64, 1 - 2 ** -53) * left.length;
  const first = Math.floor(place);
  const second = (first + 1 + Math.floor((place - first) * (left.length - 1))) % left.length;
  return load(left[second]) < load(left[first]) ? left[second] : left[first];
}
