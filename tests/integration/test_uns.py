"""The unified namespace, through a real broker."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import paho_clients
from gateway_world import Publisher, eventually
from pydantic import SecretStr
from qilu_common.broker import BrokerAddress
from qilu_contract.wire import sparkplug, topics
from qilu_platform.client import Platform
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings

from qilu import uns

ADMIN = "the-admin-key-of-this-test"
ROOT = "uns/v1/my-works/370202/C34/motor"
T = 1_700_000_000_000


class Reader(paho_clients.Subscriber):
    """Messages of the namespace and commands to edge nodes, by topic."""

    def __init__(self, broker: Any) -> None:
        self.messages: list[tuple[str, bytes]] = []
        super().__init__(broker, "uns-reader", [("uns/#", 0), ("spBv1.0/+/NCMD/+", 0)])

    def _take(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self.messages.append((message.topic, message.payload))

    def readings(self) -> list[tuple[str, dict[str, Any]]]:
        return [(topic, json.loads(body)) for topic, body in self.messages if topic.startswith("uns/")]


def sent(unit: str, type_: Any, metrics: list[sparkplug.Metric], ts_ms: int) -> tuple[str, bytes]:
    topic = topics.sparkplug(type_, "370202", "my-works", unit)
    return topic, sparkplug.encode(sparkplug.Payload(ts_ms, 1, metrics), datatypes=type_ == "DBIRTH")


async def test_readings_of_registered_units_appear_under_isa_95_topics(
    mosquitto: Any, publisher: Publisher, tmp_path: Path
) -> None:
    settings = Settings(db_url=f"sqlite:///{tmp_path}/p.sqlite", port=0, api_key=SecretStr(ADMIN))
    broker, reader, stop = BrokerAddress.from_url(mosquitto.url), Reader(mosquitto), asyncio.Event()
    async with PlatformService(settings) as service:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False) as api:
            for id_ in ("my-works", "rival"):
                body = {"id": id_, "name": id_, "county": "370202", "industry": "C34"}
                assert (await api.post("/v1/enterprises", json=body)).status_code == 201
            for id_, owner in (
                ("m1", "my-works"),
                ("m2", "my-works"),
                ("odd", "my-works"),
                ("theirs", "rival"),
            ):
                body = {"id": id_, "class": "generic" if id_ == "odd" else "motor", "enterprise": owner}
                assert (await api.post("/v1/units", json=body)).status_code == 201
        with Platform(service.url, ADMIN) as platform:
            task = asyncio.create_task(uns.run(broker, broker, platform, stop))
            await eventually(lambda: reader.ready, "the reader")
            alias = sparkplug.Metric(alias=7, value=2.5)
            birth = [sparkplug.Metric("power_in", 7, value=1.5), sparkplug.Metric(name="bdSeq", value=1)]

            def asked_for_birth() -> bool:
                """Data before a birth, sent until somebody listens: the edge node is asked for one."""
                publisher.send(*sent("m1", "DDATA", [alias], T))
                ncmd = topics.sparkplug("NCMD", "370202", "my-works")
                return any(topic == ncmd for topic, _ in reader.messages)

            await eventually(asked_for_birth, "a request for a birth")
            assert reader.readings() == []
            publisher.send(*sent("m1", "DBIRTH", birth, T + 1))
            publisher.send(*sent("m1", "DDATA", [alias], T + 2))
            publisher.send(*sent("theirs", "DBIRTH", birth, T + 3))
            publisher.send(*sent("nobody", "DBIRTH", birth, T + 3))
            publisher.send("spBv1.0/370202/DDATA/my-works/m1", b"garbage")
            publisher.send(topics.telemetry("370202", "my-works", "odd"), b'{"power_in": 1.0}')
            plain = {"ts": T + 4, "power_in": 3.5, "nonsense": 1}
            publisher.send(topics.telemetry("370202", "my-works", "m2"), json.dumps(plain).encode())
            await eventually(lambda: len(reader.readings()) >= 3, "three readings")
            assert reader.readings() == [
                (f"{ROOT}/m1", {"ts": T + 1, "values": {"power_in": 1.5}}),
                (f"{ROOT}/m1", {"ts": T + 2, "values": {"power_in": 2.5}}),
                (f"{ROOT}/m2", {"ts": T + 4, "values": {"power_in": 3.5}}),
            ]
            stop.set()
            await task
    paho_clients.close(reader.client)
