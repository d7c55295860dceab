"""Both stores keep the time of a unit's last birth with its readings."""

from __future__ import annotations

from pathlib import Path

import pytest
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    MOTOR,
    START_MS,
    FakePlatform,
    Publisher,
    data,
    eventually,
    motor,
    online,
    telemetry,
)
from qilu_contract.storage import BORN
from qilu_contract.store import SeriesQuery
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_gateway.settings import Settings
from qilu_stores import open_store


def birth(sampled_s: tuple[int, int], said_ms: int | None) -> tuple[str, bytes]:
    """A birth of m1 whose first signal and whose others were sampled at different seconds."""
    metrics = [
        Metric(signal.name, alias, START_MS + sampled_s[alias > 1] * 1000, DataType.FLOAT, signal.nominal, {})
        for alias, signal in enumerate(MOTOR.signals, 1)
    ]
    topic = topics.sparkplug("DBIRTH", COUNTY, ENTERPRISE, "m1")
    return topic, sparkplug.encode(Payload(said_ms, 1, metrics))


@pytest.fixture(params=["duckdb", "influxdb"])
def anywhere(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Settings:
    if request.param == "duckdb":
        return settings
    return settings.model_copy(update={"store": request.getfixturevalue("influxdb").url})


async def test_the_newest_point_of_a_birth_says_when_it_was_said(
    anywhere: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("m2")
    async with online(anywhere) as gateway:
        publisher.send(*birth((0, 1), START_MS + 1500))
        publisher.send(*birth((0, 1), START_MS + 1500))
        publisher.send(*data("m1", 10, 7.0))
        publisher.send(*data("m1", 20, 8.0))
        # A rebirth: the same values again, with a later timestamp.
        publisher.send(*birth((0, 10), START_MS + 33_000))
        # No time, and one that is years ahead: the newest sample's time counts.
        publisher.send(*birth((0, 40), None))
        publisher.send(*birth((0, 50), START_MS * 2))
        publisher.send(*telemetry("m2", motor()))
        await eventually(lambda: gateway.counters.accepted == 13 == gateway.counters.stored, "all stored")
        assert gateway.counters.births == 5
    async with open_store(anywhere.store) as store:
        found = [point async for chunk in store.scan("motor", 0, START_MS + 60_000) for point in chunk.all()]
        assert len(found) == 6 + 1
        rows = await store.series(SeriesQuery("motor", {"unit": "m1"}, [BORN], START_MS, START_MS + 60_000))
        assert {row.ts_ms - START_MS: row.values[BORN] for row in rows} == {
            1_000: START_MS + 1500,
            10_000: START_MS + 33_000,
            40_000: START_MS + 40_000,
            50_000: START_MS + 50_000,
        }
        assert (
            await store.series(SeriesQuery("motor", {"unit": "m2"}, [BORN], START_MS, START_MS + 60_000))
            == []
        )
        [reborn] = await store.series(
            SeriesQuery("motor", {"unit": "m1"}, ["power_in"], START_MS + 9_000, START_MS + 11_000)
        )
        assert reborn.values == {"power_in": 7.0}
