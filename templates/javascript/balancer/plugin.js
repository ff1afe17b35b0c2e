// What the gateway calls. The choice itself is in my-plugin.js, which Node can test.
import endpoints from "moongate:plugin/endpoints@0.1.0";
import { choose, configured, eligible } from "./my-plugin.js";

/** The options and choices of each binding: one configured use of the plugin. */
const bindings = new Map();

export const configurable = {
  // What is thrown here, its message, is shown to the operator.
  configure(binding, config) {
    bindings.set(binding, { ...configured(config), choices: [] });
  },
};

export const balancer = {
  update(binding, list) {
    bindings.get(binding).choices = eligible(list);
  },

  pick(binding, _sequence, random, attempt) {
    const { by, choices } = bindings.get(binding);
    const load = by === "latency" ? endpoints.latencyUs : endpoints.inflight;
    return choose(choices, random, load, attempt > 0 ? endpoints.tried : () => false);
  },
};
