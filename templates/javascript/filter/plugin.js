// What the gateway calls. What the options mean is in my-plugin.js, which Node can test.
import request from "moongate:plugin/request@0.1.0";
import response from "moongate:plugin/response@0.1.0";
import { configured } from "./my-plugin.js";

/** The header of each binding: one configured use of the plugin. */
const bindings = new Map();

export const configurable = {
  // What is thrown here, its message, is shown to the operator.
  configure(binding, config) {
    bindings.set(binding, configured(config));
  },
};

export const requestFilter = {
  onRequest(binding) {
    const { name, value } = bindings.get(binding);
    request.set(name, value);
    return { tag: "next" };
  },
};

export const responseFilter = {
  onResponse(binding) {
    const { name, value } = bindings.get(binding);
    response.set(name, value);
    return { tag: "next" };
  },
};
