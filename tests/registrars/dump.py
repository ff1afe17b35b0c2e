"""Writes what is below each root into a file: the paths in order, each with its body. See record."""

import json
import os
import sys

from kazoo.client import KazooClient

client = KazooClient(sys.argv[1])
client.start()


def below(path):
    body, stat = client.get(path)
    yield {"path": path, "body": (body or b"").decode(), "ephemeral": stat.ephemeralOwner != 0}
    for child in sorted(client.get_children(path)):
        yield from below(f"{path}/{child}")


for root in sorted(set(client.get_children("/")) - {"zookeeper"}):
    with open(os.path.join(sys.argv[2], f"{root}.json"), "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(znode) for znode in below(f"/{root}")) + "\n]\n")
    print(root)
