"""Sets a header on each request and each response of its route."""
import json
import re

# RFC 9110, 5.6.2: what a header's name is made of.
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 9110, 5.5: no line breaks and no other control characters but tabs.
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What the gateway answers for itself, and so does not let a plugin write.
RESERVED = {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}


def header(config: str) -> tuple[str, str]:
    """The options: `name` and `value` of the header; both are needed."""
    options = json.loads(config)
    name, value = options.pop("name", None), options.pop("value", None)
    for unknown in options:
        raise ValueError(f"unknown field `{unknown}`, expected `name` or `value`")
    if not isinstance(name, str) or not TOKEN.fullmatch(name):
        raise ValueError("`name` must be a header's name, such as `x-env`")
    if name.lower() in RESERVED:
        raise ValueError("`name` is a header that the gateway itself answers for")
    if not isinstance(value, str):
        raise ValueError("`value` must be a text: what is the header to be?")
    if CONTROL.search(value):
        raise ValueError("`value` has a line break or another control character in it")
    return name, value
