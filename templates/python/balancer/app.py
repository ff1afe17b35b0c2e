"""What the gateway calls. The choice itself is in my_plugin.py, which any Python can test."""
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import endpoints

import my_plugin

# The options and choices of each binding: one configured use of the plugin.
bindings: dict[int, my_plugin.State] = {}


class Configurable(exports.Configurable):
    def configure(self, binding: int, config: str) -> None:
        try:
            bindings[binding] = my_plugin.State(config)
        except ValueError as error:
            raise Err(str(error))  # shown to the operator


class Balancer(exports.Balancer):
    def update(self, binding: int, endpoints: list) -> None:
        bindings[binding].choices = my_plugin.eligible([endpoint.weight for endpoint in endpoints])

    def pick(self, binding: int, sequence: int, random: int, attempt: int) -> int:
        state = bindings[binding]
        load = endpoints.latency_us if state.by == "latency" else endpoints.inflight
        return my_plugin.choose(state.choices, random, load, endpoints.tried if attempt else None)
