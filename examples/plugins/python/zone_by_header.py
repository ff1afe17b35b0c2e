"""A header of the request names the zone whose endpoints take it, in turns; where there are none, all do."""
import json
import re
from collections.abc import Callable

# "No opinion": the gateway picks, round robin.
NO_OPINION = 0xFFFFFFFF


def header(config: str) -> str:
    """The option: `header`, the name of the header, `x-zone` if there is none."""
    options = json.loads(config)
    name = options.pop("header", "x-zone")
    for unknown in options:
        raise ValueError(f"unknown field `{unknown}`, expected `header`")
    if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):  # RFC 9110, 5.6.2
        raise ValueError("`header` must be a header's name, such as `x-zone`")
    return name.lower()


class Zones:
    """The indices of the endpoints that may be picked, of each zone and of all."""

    def __init__(self, endpoints: list[tuple[str, int]]):
        weighted = any(weight > 0 for _, weight in endpoints)
        self.all: list[int] = []
        self.of: dict[str, list[int]] = {}
        for index, (zone, weight) in enumerate(endpoints):
            if weight > 0 or not weighted:  # 0: only where every endpoint has 0
                self.all.append(index)
                self.of.setdefault(zone, []).append(index)

    def pick(self, zone: str | None, sequence: int, tried: Callable[[int], bool] | None) -> int:
        """The index to pick; a retry, which has `tried`, goes elsewhere: in the zone as long as that has another."""
        for choices in (self.of.get(zone or "", []), self.all):
            left = [index for index in choices if not tried(index)] if tried else choices
            if left:
                return left[sequence % len(left)]
        return NO_OPINION
