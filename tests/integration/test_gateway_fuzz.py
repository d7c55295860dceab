"""Whatever is published, on whatever topic: the gateway continues and accounts for every reading. Real
broker, real store; random and mutated topics and payloads, seeded. 20,000 messages with all tests, 1,000,000
with QILU_SOAK=1.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import paho.mqtt.client as paho
import paho_clients
import pytest
from column_fuzz import mutated
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    MOTOR,
    START_MS,
    FakePlatform,
    assert_adds_up,
    birth,
    data,
    eventually,
    get,
    motor,
    online,
    stored,
    telemetry,
)
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_gateway import statefile
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters
from qilu_stores import open_store

MESSAGES = 1_000_000 if os.environ.get("QILU_SOAK") == "1" else 20_000
SEED = 20260101
CHUNK = 2000
CANARY_EVERY = 100
UNITS = [f"m{number}" for number in range(20)]
ROOTS = ("spBv1.0/", "qilu/v1/")
NODES = ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH", "NCMD", "DCMD")


def number(chance: random.Random) -> Any:
    return chance.choice(
        [0, -1, 1.5, 1e308, -1e-308, 2**63, 2**64, 10**30, True, None, "", "x", [], {}, [1], chance.random()]
    )


def json_payload(chance: random.Random) -> bytes:
    reading: dict[str, Any] = motor(chance.randrange(10**6), chance.uniform(-1e6, 1e6))
    for _ in range(chance.randrange(3)):
        key = chance.choice([*reading, "ts", "", "neu", "\u0000"])
        if chance.random() < 0.5:
            reading.pop(key, None)
        else:
            reading[key] = number(chance)
    content: Any = reading if chance.random() < 0.6 else [reading] * chance.randrange(5)
    return json.dumps(content).encode()


def sparkplug_payload(chance: random.Random) -> bytes:
    names = [signal.name for signal in MOTOR.signals] + ["bdSeq", "Node Control/Rebirth", "", "neu"]
    kinds = (DataType.FLOAT, DataType.DOUBLE, DataType.INT64, DataType.BOOLEAN, DataType.STRING)
    values = {DataType.INT64: -5, DataType.BOOLEAN: True, DataType.STRING: "x"}
    metrics = []
    for _ in range(chance.randrange(8)):
        kind = chance.choice(kinds)
        metrics.append(
            Metric(
                chance.choice([*names, None]),
                chance.choice([None, 0, 1, 5, 2**40]),
                chance.choice([None, START_MS, 0, 2**63]),
                chance.choice([kind, kind, DataType.UNKNOWN]) if kind == DataType.FLOAT else kind,
                None if chance.random() < 0.1 else values.get(kind, chance.choice([1.5, float("nan"), 1e38])),
            )
        )
    ts_ms = chance.choice([None, START_MS + chance.randrange(10**9), 2**62])
    return sparkplug.encode(
        Payload(ts_ms, chance.choice([None, 0, 255, 256, chance.randrange(256)]), metrics)
    )


def payload(chance: random.Random) -> bytes:
    match chance.randrange(8):
        case 0:
            return chance.randbytes(chance.randrange(100))
        case 1:
            clock = {"now": chance.choice([0, 2**60, 10**400]), "speed": chance.choice([1, 1e308, -1e308])}
            return chance.choice(
                [
                    json.dumps(clock).encode(),
                    b"",
                    b"[",
                    b"[" * 3000,
                    b'{"a":' * 3000,
                    b"null",
                    b"\xff\xfe",
                    b"9" * 5000,
                ]
            )
        case 2:
            return json_payload(chance)
        case 3:
            return mutated(chance, json_payload(chance))
        case 4 | 5:
            return sparkplug_payload(chance)
        case _:
            return mutated(chance, sparkplug_payload(chance))


def topic(chance: random.Random) -> str:
    unit = chance.choice([*UNITS, "nobody", f"u{chance.randrange(1000)}"])
    match chance.randrange(10):
        case 0 | 1 | 2:
            text = topics.telemetry(COUNTY, ENTERPRISE, unit)
        case 3:
            text = chance.choice([topics.CLOCK, topics.state(), topics.state("another")])
        case _:
            kind = chance.choice(NODES)
            device = unit if kind[0] == "D" and chance.random() < 0.95 else None
            text = topics.sparkplug(kind, COUNTY, ENTERPRISE, device)  # type: ignore[arg-type]
    if chance.random() < 0.3:
        root = next(root for root in ROOTS if text.startswith(root))
        rest = mutated(chance, text.removeprefix(root).encode()).decode(errors="replace")
        text = root + "".join(c for c in rest if c.isprintable() and c not in "+#")
    return text


def messages(chance: random.Random, count: int) -> Iterator[tuple[str, bytes]]:
    """One message in CANARY_EVERY is a good reading of a unit that occurs in no other message."""
    for place in range(count):
        if place % CANARY_EVERY == 0:
            yield telemetry("canary", motor(place))
        elif chance.random() < 0.1:
            yield chance.choice([birth, lambda unit, second: data(unit, second, 1.0)])(
                chance.choice(UNITS), chance.randrange(10**6)
            )
        else:
            yield topic(chance), payload(chance)


@pytest.fixture
def feeder(mosquitto: Any) -> Iterator[paho.Client]:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "fuzz", protocol=paho.MQTTv5)
    client.max_inflight_messages_set(CHUNK)
    client.connect(mosquitto.host, mosquitto.port)
    client.loop_start()
    yield client
    paho_clients.close(client)


def publish(client: paho.Client, chunk: list[tuple[str, bytes]]) -> None:
    """Returns when the broker has them all."""
    for info in [client.publish(name, body, 1) for name, body in chunk]:
        info.wait_for_publish(60)
        assert info.is_published()


async def test_nothing_that_is_published_stops_the_gateway_or_is_forgotten(
    settings: Settings, platform: FakePlatform, feeder: paho.Client
) -> None:
    for unit in [*UNITS, "canary"]:
        platform.register(unit)
    chance = random.Random(SEED)
    sent, began_s = 0, time.monotonic()
    async with online(settings) as gateway:
        before = gateway.counters.messages
        stream = messages(chance, MESSAGES)
        while chunk := list(islice(stream, CHUNK)):
            await asyncio.to_thread(publish, feeder, chunk)
            sent += len(chunk)
            assert_adds_up(gateway)
            if sent % 100_000 == 0:
                rate = sent / (time.monotonic() - began_s)
                print(f"{sent:,} messages, {rate:,.0f}/s, {gateway.counters}", flush=True)  # noqa: T201
        await eventually(lambda: gateway.counters.messages == before + sent, "all received")
        await eventually(lambda: gateway.counters.in_flight == 0, "all brought to an end")
        counters = gateway.counters
        assert counters.accepted == counters.stored + counters.dead_lettered + counters.spooled
        assert counters.stored > sent // CANARY_EVERY
        await eventually(lambda: gateway.online, "online")
        assert "qilu_gateway_unaccounted 0.0" in (await get(gateway, "/metrics")).text
        dead_lettered, evicted = counters.dead_lettered, counters.evicted
    with dead_letters.open_for_reading(settings.state / statefile.FILE_NAME) as connection:
        kept = dead_letters.count_readings(connection)
        assert dead_letters.evicted_readings(connection) == evicted
        [canaries] = connection.execute("SELECT count(*) FROM dead_letters WHERE unit = 'canary'").fetchone()
    assert sum(kept.values()) + evicted == dead_lettered
    assert len(kept) >= 8  # of eleven reasons
    assert canaries == 0
    # The store holds exactly the canary's readings that were sent.

    async with open_store(settings.store) as store:
        points = 0
        async for found in store.scan("motor", START_MS, START_MS + MESSAGES * 1000):
            points += sum(point.tags[-1] == "canary" for point in found.all())
    assert points == sent // CANARY_EVERY
    assert await stored(settings) >= points
