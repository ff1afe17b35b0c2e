"""Registers services by Twitter's library, by Apache Dubbo's and by Kazoo alone. See record."""

import base64
import json
import sys

from dubbo.registry.zookeeper.kazoo_transport import KazooZookeeperTransport
from dubbo.registry.zookeeper.zk_registry import ZookeeperRegistry
from dubbo.url import create_url
from kazoo.client import KazooClient
from twitter.common.zookeeper.serverset import Endpoint, ServerSet



class Client(KazooClient):
    """Takes texts, too: Twitter's library is from a time when they were bytes."""

    def create_async(self, path, value=b"", *more, **named):
        value = value.encode() if isinstance(value, str) else value
        return super().create_async(path, value, *more, **named)


hosts = sys.argv[1]
client = Client(hosts)
client.start()

members = ServerSet(client, "/serverset/web")
members.join(Endpoint("10.2.2.1", 80), {"http": Endpoint("10.2.2.1", 8080)}, shard=0)
members.join(Endpoint("web-2.invalid", 80, inet="10.2.2.2"), {}, shard=1)
members.join(Endpoint("10.2.2.3", 443), {"https": Endpoint("10.2.2.3", 443)}, shard=2)
client.create(
    "/serverset/web/vector_0000000000",
    json.dumps({"vector": [{"select": "shard=1", "weight": 0.5, "priority": 1}]}).encode(),
)

dubbo = ZookeeperRegistry(create_url(f"zookeeper://{hosts}"), KazooZookeeperTransport())
for url in [
    "tri://10.3.3.1:50051/org.x.Demo?application=demo&category=providers&methods=a,b&side=provider",
    "dubbo://10.3.3.2:20880/org.x.Demo?application=demo&category=providers&weight=200&zone=z1",
    "tri://10.3.3.3:50051/org.x.Demo?application=demo&category=providers&disabled=true",
    "consumer://10.3.3.4/org.x.Demo?application=demo&category=consumers",
]:
    dubbo.register(create_url(url))


def nerve(body, name):
    client.create(f"/nerve/web/{name}_", json.dumps(body).encode(), ephemeral=True, sequence=True, makepath=True)


nerve({"host": "10.4.4.1", "port": 3000, "name": "i-1"}, "i-1")
nerve({"host": "10.4.4.2", "port": 3000, "name": "i-2", "weight": 7, "labels": {"az": "us-east-1a"}}, "i-2")
encoded = {"host": "10.4.4.3", "port": 3000, "name": "i-3", "labels": {"text": "~~~???"}}
encoded_name = base64.urlsafe_b64encode(json.dumps(encoded).encode()).decode()
nerve(encoded, f"base64_{len(encoded_name)}_{encoded_name}")

print("registered", flush=True)
sys.stdin.read()
