"""RabbitMQ 4 as a cell's broker: how it differs from Mosquitto, and that the project copes. A test that fails
on a newer RabbitMQ may mean that a workaround is no longer needed.

Three real nodes on loopback; run by `make test-cluster`."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from gateway_world import COUNTY, ENTERPRISE, FakePlatform, birth, data, eventually, motor, online
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from pydantic import SecretStr
from qilu_common.broker import BrokerAddress
from qilu_contract.errors import ConfigError
from qilu_contract.wire import topics
from qilu_contract.wire.ids import is_id
from qilu_devices.edge.edge_node import EdgeNode, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.fleet import Enterprise, Unit
from qilu_gateway import sharing
from qilu_gateway.settings import Settings
from qilu_gateway.sharing import Sharing, of_partition
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings as PlatformSettings
from rabbitmq_cluster import PASSWORD, USER, Cluster, Node, cluster

pytestmark = pytest.mark.skipif(
    os.environ.get("QILU_CLUSTER") != "1", reason="needs three RabbitMQ nodes: make test-cluster"
)
PATIENCE_S = 60.0
NEVER = 0xFFFFFFFF
KEY = "the-key-of-this-test"


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("rabbitmq"), free_port) as made:
        yield made


class Client:
    """An MQTT client that has nothing to do with ours, on one node."""

    def __init__(
        self,
        node: Node,
        client_id: str = "",
        *,
        lasting: bool = False,
        by_hand: bool = False,
        will: tuple[str, bytes] | None = None,
    ) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._changed = threading.Condition()
        self._settled: list[int] = []
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id or f"test-{secrets.token_hex(4)}",
            protocol=paho.MQTTv5,
            manual_ack=by_hand,
        )
        client.username_pw_set(USER, PASSWORD)
        if will is not None:
            client.will_set(*will, qos=1)
        client.on_message = self._on_message
        client.on_subscribe = lambda *given: self._settle(given[2])
        client.on_disconnect = lambda *given: self._settle(-1)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = NEVER if lasting else 0
        client.connect(node.host, node.mqtt, clean_start=not lasting, properties=properties, keepalive=10)
        client.loop_start()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def _settle(self, mid: int) -> None:
        with self._changed:
            self._settled.append(mid)
            self._changed.notify_all()

    def _wait(self, done: Callable[[], Any]) -> None:
        with self._changed:
            assert self._changed.wait_for(done, PATIENCE_S), [each.topic for each in self.messages]

    def subscribe(self, filter_: str) -> None:
        mid = self._client.subscribe(filter_, 1)[1]
        assert mid is not None
        self._wait(lambda: mid in self._settled)

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> None:
        """Returns when the broker has it."""
        self._client.publish(topic, payload, 1, retain).wait_for_publish(PATIENCE_S)

    def topics(self, count: int) -> list[str]:
        """Of the first messages, when so many are there."""
        self._wait(lambda: len(self.messages) >= count)
        return [each.topic for each in self.messages]

    def topics_until(self, last: str) -> list[str]:
        """Of all messages until one on the topic `last` is there."""
        self._wait(lambda: last in [each.topic for each in self.messages])
        return [each.topic for each in self.messages]

    def break_off(self) -> None:
        """Without a DISCONNECT."""
        self._client.loop_stop()
        socket = self._client.socket()
        if socket is not None:
            socket.close()

    def close(self) -> None:
        self._client.disconnect()
        self.break_off()


def test_a_retained_state_reaches_no_wildcard_and_no_other_node(rabbitmq: Cluster) -> None:
    first, second, _ = rabbitmq.nodes
    host = f"host-{secrets.token_hex(4)}"
    publisher = Client(first)
    publisher.publish(topics.state(host), b"retained", retain=True)
    found: dict[str, list[str]] = {}
    for name, node, filter_ in (
        ("here", first, topics.state(host)),
        ("wildcard", first, "spBv1.0/STATE/#"),
        ("elsewhere", second, topics.state(host)),
    ):
        client = Client(node)
        client.subscribe(filter_)
        client.subscribe(f"end/{host}")
        publisher.publish(f"end/{host}")
        client._wait(lambda client=client: f"end/{host}" in [each.topic for each in client.messages])
        found[name] = [each.topic for each in client.messages if "STATE" in each.topic]
        client.close()
    publisher.close()
    assert found == {"here": [f"spBv1/0/STATE/{host}"], "wildcard": [], "elsewhere": []}


def test_dots_become_slashes_except_in_the_namespace(rabbitmq: Cluster) -> None:
    client = Client(rabbitmq.nodes[0])
    client.subscribe("#")
    for topic in ("spBv1.0/g/DDATA/a.b/c", "qilu/v1/g/e.x/u/telemetry", "qilu/history/spBv1.0/g/NDATA/n"):
        client.publish(topic)
    found = client.topics(3)
    client.close()
    assert found == [
        "spBv1.0/g/DDATA/a/b/c",
        "qilu/v1/g/e/x/u/telemetry",
        "qilu/history/spBv1/0/g/NDATA/n",
    ]
    assert not is_id("a.b")  # so none of our topics has such a dot, and a foreign one becomes a dead letter


def test_shared_subscriptions_are_granted_and_deliver_nothing(rabbitmq: Cluster) -> None:
    sharing, other = Client(rabbitmq.nodes[0]), Client(rabbitmq.nodes[0])
    sharing.subscribe("$share/group/shared/#")
    other.subscribe("shared/#")
    other.publish("shared/a")
    other.topics(1)
    sharing.subscribe("end")
    other.publish("end")
    found = sharing.topics(1)
    sharing.close()
    other.close()
    assert found == ["end"]


def test_a_message_may_be_redelivered_more_often_than_twenty_times(rabbitmq: Cluster) -> None:
    # Without our policy a quorum queue drops it at its 21st delivery: `delivery-limit` is 20 since 4.0.
    id_ = f"test-{secrets.token_hex(4)}"
    client = Client(rabbitmq.nodes[0], id_, lasting=True, by_hand=True)
    client.subscribe(f"again/{id_}")
    client.publish(f"again/{id_}")
    client.break_off()
    for time_ in range(25):
        client = Client(rabbitmq.nodes[time_ % 3], id_, lasting=True, by_hand=True)
        assert client.topics(1) == [f"again/{id_}"]
        client.break_off()
    Client(rabbitmq.nodes[0], id_).close()


def test_a_will_dies_with_its_node(rabbitmq: Cluster) -> None:
    first, _, third = rabbitmq.nodes
    hearer, mortal = Client(first), Client(third, will=("wills/one", b"dead"))
    hearer.subscribe("wills/#")
    third.kill()
    deadline = time.monotonic() + PATIENCE_S
    while Cluster.running_nodes(first) == 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    hearer.publish("wills/end")
    found = hearer.topics(1)
    mortal.break_off()
    hearer.close()
    third.start()
    third.wait()
    assert found == ["wills/end"]


def gateway_settings(rabbitmq: Cluster, platform: FakePlatform, folder: Path) -> Settings:
    return Settings(
        broker=rabbitmq.url,
        store=f"duckdb:///{folder}/readings.duckdb",
        platform=platform.url,
        state=folder / "gateway",
        http_port=0,
        batch_age_s=0.05,
    )


async def test_edge_nodes_on_every_node_hear_state_and_history_is_stored(
    rabbitmq: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", "ingest-key")
    platform = FakePlatform()
    platform.register("m1")
    flow = Flow()
    nodes = []
    address = BrokerAddress.from_url(rabbitmq.url)
    settings = gateway_settings(rabbitmq, platform, tmp_path)
    async with online(settings) as gateway:
        # They connect after the gateway has published its STATE, each to one node.
        for number, each in enumerate(address.nodes, 1):
            enterprise = Enterprise(f"{COUNTY}-e1000{number}", 0, "Works", COUNTY, "C34")
            unit = Unit(f"n{number}", "motor", enterprise)
            one = BrokerAddress(each.host, each.port, False, address.user, address.password)
            nodes.append(EdgeNode(enterprise, [unit], NodeConfig(one, 100), flow, lambda: None))
        running = [asyncio.create_task(node.run()) for node in nodes]
        await eventually(lambda: all(node.online for node in nodes), "all online")
        client = Client(rabbitmq.nodes[1])
        for topic, payload in (birth("m1"), data("m1", 10, 12.0), data("m1", 20, 13.0, seq=3)):
            client.publish(topics.HISTORY + topic, payload)
        await eventually(lambda: gateway.counters.stored >= 3, "history stored")
        assert gateway.dead_lettered_by_reason == {}
        for node in nodes:
            node.stop()
        await asyncio.gather(*running)
        client.close()
    platform.stop()


async def test_of_two_gateways_with_one_shard_one_stops_with_a_sentence(
    rabbitmq: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the lease while the platform is there. Without it by the broker, which gives a session to one
    connection, on whatever node."""
    monkeypatch.setattr(sharing, "LEASE_S", 1.0)
    monkeypatch.setenv("QILU_API_KEY", KEY)
    first, _, third = rabbitmq.nodes

    def gateway(number: int, node: Node, platform: str) -> Sharing:
        settings = Settings(
            broker=f"mqtt://{USER}:{PASSWORD}@{node.host}:{node.mqtt}",
            store=f"duckdb:///{tmp_path}/readings{number}.duckdb",
            platform=platform,
            state=tmp_path / f"gateway{number}",
            host_id=host,
            shard="1/2",
            http_port=0,
        )
        return of_partition(settings)

    host = f"host-{secrets.token_hex(4)}"
    registry = PlatformSettings(
        db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, api_key=SecretStr(KEY)
    )
    async with PlatformService(registry) as platform:
        one = gateway(1, first, platform.url)
        serving = asyncio.create_task(one.run())
        await eventually(lambda: one.shards == [1], "the first serves")
        with pytest.raises(ConfigError, match="Another gateway has the shard 1/2"):
            await gateway(2, third, platform.url).run()
        assert not serving.done()
        one.stop()
        await serving
    host = f"host-{secrets.token_hex(4)}"
    pair = [gateway(number, node, "http://127.0.0.1:1") for number, node in ((3, first), (4, third))]
    tasks = []
    for each in pair:
        tasks.append(asyncio.create_task(each.run()))
        await eventually(lambda each=each: each.shards == [1], "it serves")
    await asyncio.wait(tasks, return_when="FIRST_COMPLETED", timeout=PATIENCE_S)
    [ended] = [task for task in tasks if task.done()]
    assert "session" in str(ended.exception())
    for each in pair:
        each.stop()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_gateway_outlives_the_node_that_it_is_connected_to(
    rabbitmq: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", "ingest-key")
    platform = FakePlatform()
    platform.register("m1")
    settings = gateway_settings(rabbitmq, platform, tmp_path)
    async with online(settings) as gateway:
        client, sent = Client(rabbitmq.nodes[0]), 0
        for node in rabbitmq.nodes[1:]:
            node.kill()
            for _ in range(20):
                sent += 1
                client.publish(topics.telemetry(COUNTY, ENTERPRISE, "m1"), json.dumps(motor(sent)).encode())
            await eventually(lambda sent=sent: gateway.counters.stored >= sent, "stored")
            node.start()
            node.wait()
        client.close()
        await eventually(lambda: gateway.online, "online again")
    platform.stop()
