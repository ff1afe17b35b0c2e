"""What the gateway calls. What the options mean is in my_plugin.py, which any Python can test."""
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import filter_types, request, response

import my_plugin

# The header of each binding: one configured use of the plugin.
bindings: dict[int, tuple[str, str]] = {}


class Configurable(exports.Configurable):
    def configure(self, binding: int, config: str) -> None:
        try:
            bindings[binding] = my_plugin.header(config)
        except ValueError as error:
            raise Err(str(error))  # shown to the operator


class RequestFilter(exports.RequestFilter):
    def on_request(self, binding: int) -> filter_types.Verdict:
        request.set(*bindings[binding])
        return filter_types.Verdict_Next()


class ResponseFilter(exports.ResponseFilter):
    def on_response(self, binding: int) -> filter_types.Verdict:
        response.set(*bindings[binding])
        return filter_types.Verdict_Next()
