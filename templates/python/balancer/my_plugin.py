"""Of two endpoints taken at random, the one that is less loaded.

Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001: nearly as even as asking all of them, and
without the herd that runs to the same one.
"""
import json
from collections.abc import Callable

# "No opinion": the gateway picks, round robin.
NO_OPINION = 0xFFFFFFFF


class State:
    """One use of the plugin. `by` is what load means: `inflight` (requests in flight) or `latency` (mean time to the head)."""

    def __init__(self, config: str):
        options = json.loads(config)
        self.by = options.pop("by", "inflight")
        self.choices: list[int] = []
        for unknown in options:
            raise ValueError(f"unknown field `{unknown}`, expected `by`")
        if self.by not in ("inflight", "latency"):
            raise ValueError(f"`by` is `{self.by}`: it must be `inflight` or `latency`")


def eligible(weights: list[int]) -> list[int]:
    """The indices of the endpoints that may be picked: weight 0 means only where every endpoint has 0."""
    return [index for index, weight in enumerate(weights) if weight > 0] or list(range(len(weights)))


def choose(choices: list[int], random: int, load: Callable[[int], int], tried: Callable[[int], bool] | None) -> int:
    """The index to pick; a retry, which has `tried`, goes elsewhere."""
    if tried:
        choices = [index for index in choices if not tried(index)]
    if len(choices) < 2:
        return choices[0] if choices else NO_OPINION
    # Two places out of one random number: its quotient is as random as its remainder.
    rest, first = divmod(random, len(choices))
    second = (first + 1 + rest % (len(choices) - 1)) % len(choices)
    return min(choices[first], choices[second], key=load)
