"""Ownership: which messages count for which unit, retained ones included. On both brokers, with restarts of
the gateway in between.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    START_MS,
    FakePlatform,
    Publisher,
    eventually,
    get,
    letters,
    motor,
    online,
    telemetry,
)
from qilu_contract.errors import Reason
from qilu_contract.store import SeriesQuery
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_gateway.settings import Settings
from qilu_stores import open_store

OTHER = "370202-e00002"


@pytest.fixture
def settings(settings: Settings, any_broker: Any) -> Settings:
    return settings.model_copy(update={"broker": any_broker.url})


@pytest.fixture
def publisher(any_broker: Any) -> Iterator[Publisher]:
    with contextlib.closing(Publisher(any_broker)) as publisher:
        yield publisher


def message(
    kind: topics.MessageType, *metrics: Metric, node: str = ENTERPRISE, unit: str = "m1", second: int = 0
) -> tuple[str, bytes]:
    topic = topics.sparkplug(kind, COUNTY, node, unit if kind[0] == "D" else None)
    return topic, sparkplug.encode(Payload(START_MS + second * 1000, None, metrics))


def named(value: float = 1.0, **aliases: int) -> list[Metric]:
    return [Metric(name, alias, None, DataType.FLOAT, value) for name, alias in aliases.items()]


def bd_seq(number: int) -> Metric:
    return Metric("bdSeq", 0, None, DataType.INT64, number)


def alias(number: int, value: float) -> Metric:
    return Metric(alias=number, value=value)


async def values(settings: Settings) -> dict[int, dict[str, float]]:
    """Stored values of m1, by seconds after the start."""
    async with open_store(settings.store) as store:
        names = ["speed", "power_in"]
        rows = await store.series(SeriesQuery("motor", {"unit": "m1"}, names, START_MS, START_MS + 3_600_000))
    return {(row.ts_ms - START_MS) // 1000: row.values for row in rows}


async def test_a_node_says_nothing_about_what_is_not_its_own(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    foreign = [
        message("DBIRTH", *named(speed=2, power_in=1), node=OTHER, second=50),
        message("DDATA", *named(speed=1), node=OTHER, second=51),
        message("DBIRTH", Metric("speed", 1, None, DataType.FLOAT, None), node=OTHER, second=52),
        message("DDEATH", node=OTHER),
        (topics.telemetry(COUNTY, OTHER, "m1"), json.dumps(motor(53)).encode()),
        (topics.telemetry("370203", ENTERPRISE, "m1"), json.dumps(motor(54)).encode()),
    ]
    async with online(settings) as gateway:
        publisher.send(*message("NBIRTH", bd_seq(1)))
        publisher.send(*message("DBIRTH", *named(speed=1, power_in=2)))
        publisher.send(*message("NBIRTH", bd_seq(1), node=OTHER))
        publisher.send_all(foreign)
        await eventually(lambda: gateway.counters.dead_lettered == len(foreign), "all refused")
        assert gateway.dead_lettered_by_reason == {Reason.WRONG_OWNER: len(foreign)}
        # Nor do these reach beyond the node itself.
        publisher.send(*message("NDEATH", bd_seq(1), node=OTHER))
        publisher.send(*message("NBIRTH", bd_seq(2), node=OTHER))
        publisher.send("spBv1.0/STATE/IamHost", b'{"online": false, "timestamp": 1}')
        publisher.send("spBv1.0/STATE/Scada 1", b"OFFLINE")
        publisher.send(*message("DDATA", alias(1, 3.0), second=1))
        await eventually(lambda: gateway.counters.stored == 2, "its own data")
        # The unit is retired, and its node publishes its death: no reading, and no refusal.
        publisher.send(*message("DDEATH", unit="retired"))
        publisher.send(*message("DDEATH"))
        await eventually(lambda: platform.gone == ["m1"], "its own death")
        assert gateway.counters.ignored_deaths == 1
        assert gateway.counters.accepted == len(foreign) + 2
    assert letters(settings) == {Reason.WRONG_OWNER: len(foreign)}
    assert await values(settings) == {0: {"speed": 1.0, "power_in": 1.0}, 1: {"speed": 3.0}}


async def test_what_the_broker_kept_gives_no_alias_another_meaning(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("m2")
    kept = [
        message("DBIRTH", *named(power_in=1, speed=2), second=10),
        message("DDATA", alias(1, 7.0), second=11),
        telemetry("m2", motor(12)),
    ]
    for topic, payload in kept:
        publisher.send(topic, payload, retain=True)
    async with online(settings) as gateway:
        # Nothing newer is known: its readings, and a request.
        await eventually(lambda: gateway.counters.stored == 2, "what a birth and plain JSON say themselves")
        await eventually(lambda: publisher.commands, "a rebirth request")
        assert gateway.counters.births == 0
        publisher.send(*message("NBIRTH", bd_seq(1), second=20))
        publisher.send(*message("DBIRTH", *named(speed=1, power_in=2), second=20))
        await eventually(lambda: gateway.counters.stored == 3, "the birth of today")
        assert letters(settings) == {Reason.NO_BIRTH: 1}
    for second, host_id, count in ((30, settings.host_id, 1), (40, f"host-{secrets.token_hex(4)}", 3)):
        # Of another name its session is new, and the broker hands over all that it kept.
        async with online(settings.model_copy(update={"host_id": host_id})) as gateway:
            publisher.send(*message("DDATA", alias(1, 3.0), second=second))
            await eventually(lambda: "m1" in platform.active, "active")
            await eventually(
                lambda count=count: gateway.counters.in_flight == 0 and gateway.counters.stored >= count,
                "all stored",
            )
            assert gateway.counters.births == 0
    for topic, _ in kept:
        publisher.send(topic, b"", retain=True)
    found = await values(settings)
    assert found[30] == {"speed": 3.0}
    assert found[40] == {"speed": 3.0}
    assert 11 not in found
    assert set(letters(settings)) == {Reason.NO_BIRTH}


async def test_deaths_and_births_are_remembered_through_restarts_of_gateway_and_broker(
    any_broker: Any, settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    """Also messages that arrived while the gateway was down."""
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send(*message("NBIRTH", bd_seq(9)))
        publisher.send(*message("DBIRTH", *named(speed=1)))
        await eventually(lambda: gateway.counters.stored == 1, "born")
    publisher.send(*message("NDEATH", bd_seq(8)))
    publisher.send(*message("NDEATH"))
    async with online(settings) as gateway:
        await eventually(lambda: gateway.counters.ignored_deaths == 1, "an older connection's will")
        await eventually(
            lambda: letters(settings) == {Reason.BAD_PAYLOAD: 1}, "and a death of nobody knows what"
        )
        publisher.send(*message("DDATA", alias(1, 2.0), second=1))
        await eventually(lambda: gateway.counters.stored == 1, "it lives")
        any_broker.stop()
        await eventually(lambda: not gateway.online, "the broker is down")
        any_broker.start()
        publisher.close()
        publisher = Publisher(any_broker)
        await eventually(lambda: gateway.online, "the broker is back")
        publisher.send(*message("NDEATH", bd_seq(8)))
        publisher.send(*message("DDATA", alias(1, 2.0), second=2))
        await eventually(lambda: gateway.counters.stored == 2, "it lives on")
        assert (platform.gone, gateway.counters.ignored_deaths) == ([], 2)
        publisher.send(*message("NDEATH", Metric(alias=0, datatype=DataType.INT64, value=9)))
        await eventually(lambda: platform.gone == ["m1"], "the death of this connection")
    async with online(settings) as gateway:
        publisher.send(*message("DDATA", alias(1, 2.0), second=5))
        await eventually(lambda: publisher.commands, "a rebirth request")
        publisher.send(*message("NBIRTH", bd_seq(10), second=3))
        publisher.send(*message("DBIRTH", *named(speed=1), second=3))
        publisher.send(*message("DDATA", alias(1, 4.0), second=4))
        await eventually(lambda: gateway.counters.stored == 2, "born again")
        await eventually(
            lambda: letters(settings).get(Reason.NO_BIRTH) == 1,
            "nothing by the aliases of another connection",
        )
        publisher.close()
        assert "qilu_gateway_ignored_deaths_total" in (await get(gateway, "/metrics")).text
    assert await values(settings) == {
        second: {"speed": v} for second, v in ((0, 1.0), (1, 2.0), (2, 2.0), (3, 1.0), (4, 4.0))
    }
