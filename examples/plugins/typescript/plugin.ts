// What the gateway calls. What the options mean is in response-headers.ts, which Node can test.
import response from "moongate:plugin/response@0.1.0";
import { type Options, configured } from "./response-headers.js";

/** What each binding, one configured use of the plugin, does. */
const bindings = new Map<number, Options>();

export const configurable = {
  // What is thrown here, its message, is shown to the operator.
  configure(binding: number, config: string): void {
    bindings.set(binding, configured(config));
  },
};

export const responseFilter = {
  onResponse(binding: number): Verdict {
    const { set, remove } = bindings.get(binding)!;
    for (const name of remove) response.remove(name);
    for (const [name, value] of set) response.set(name, value);
    return { tag: "next" };
  },
};
