"""What the gateway calls. The choice itself is in zone_by_header.py, which any Python can test."""
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import endpoints, request_keys

from zone_by_header import Zones, header

# For each binding, one configured use of the plugin: the number of the request key, and its endpoints.
bindings: dict[int, tuple[int, Zones]] = {}


class Configurable(exports.Configurable):
    def configure(self, binding: int, config: str) -> None:
        try:
            name = header(config)
        except ValueError as error:
            raise Err(str(error))  # shown to the operator
        key = request_keys.declare(request_keys.Source_Header(name))
        bindings[binding] = key, Zones([])


class Balancer(exports.Balancer):
    def update(self, binding: int, endpoints: list) -> None:
        key, _ = bindings[binding]
        bindings[binding] = key, Zones([(endpoint.zone, endpoint.weight) for endpoint in endpoints])

    def pick(self, binding: int, sequence: int, random: int, attempt: int) -> int:
        key, zones = bindings[binding]
        return zones.pick(request_keys.text(key), sequence, endpoints.tried if attempt else None)
