"""History beside the present: with a separate session, window and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    MOTOR,
    START_MS,
    FakePlatform,
    Publisher,
    birth,
    data,
    eventually,
    gateway_settings,
    get,
    letters,
    motor,
    online,
    stored,
    telemetry,
)
from qilu_contract.errors import Reason
from qilu_contract.store import SeriesQuery
from qilu_contract.wire import topics
from qilu_gateway.settings import Settings
from qilu_stores import open_store

QUEUED = 5_000
POWER = MOTOR.signal("power_in").nominal


def history(message: tuple[str, bytes]) -> tuple[str, bytes]:
    return topics.HISTORY + message[0], message[1]


@pytest.fixture
def settings_of_any(any_broker: Any, platform: FakePlatform, tmp_path: Path) -> Settings:
    return gateway_settings(any_broker, platform, tmp_path).model_copy(update={"batch_size": 200})


async def test_a_live_reading_is_stored_before_history_that_was_queued_ahead_of_it(
    any_broker: Any, settings_of_any: Settings, platform: FakePlatform
) -> None:
    settings = settings_of_any
    for unit in ("old", "new"):
        platform.register(unit)
    publisher = Publisher(any_broker)
    async with online(settings):
        pass  # the broker keeps its sessions from now on
    publisher.send(*history(birth("old")))
    publisher.send_all([history(data("old", seconds, 11.0)) for seconds in range(1, QUEUED)])
    publisher.send(*telemetry("new", motor(0)))
    stored_of_old: list[int] = []
    async with online(settings) as gateway:
        await eventually(lambda: "new" in platform.first or "new" in platform.active, "the live one stored")
        stored_of_old.append(gateway.counters.stored - 1)
        await eventually(lambda: gateway.counters.stored == QUEUED + 1, "history, all of it")
        assert "qilu_gateway_lag_seconds_count 1.0" in (await get(gateway, "/metrics")).text
        assert gateway.counters.dead_lettered == 0
    publisher.close()
    assert stored_of_old[0] < QUEUED
    assert await stored(settings) == QUEUED + 1


async def test_history_has_alias_tables_of_its_own_and_says_nothing_of_who_is_there(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send(*birth("m1", 100, first_alias=1))
        await eventually(lambda: gateway.counters.stored == 1, "born")
        publisher.send(*history(birth("m1", 0, first_alias=50)))
        publisher.send(*history(data("m1", 1, 5.0, first_alias=50)))
        publisher.send(*history((topics.sparkplug("DDEATH", COUNTY, ENTERPRISE, "m1"), b"")))
        publisher.send(*history((topics.sparkplug("NDEATH", COUNTY, ENTERPRISE), b"")))
        await eventually(lambda: gateway.counters.stored == 3, "history")
        publisher.send(*data("m1", 101, 7.0, first_alias=1))
        await eventually(lambda: gateway.counters.stored == 4, "the present continues")
        publisher.send(*history(telemetry("m1", motor(2))))
        await eventually(lambda: gateway.counters.dead_lettered == 1, "no JSON among history")
        assert platform.gone == []
    assert letters(settings) == {Reason.BAD_TOPIC: 1}
    async with open_store(settings.store) as store:
        rows = await store.series(
            SeriesQuery("motor", {"unit": "m1"}, ["power_in"], START_MS, START_MS + 200_000)
        )
    assert [(row.ts_ms - START_MS, row.values["power_in"]) for row in rows] == [
        (0, POWER),
        (1_000, 5.0),
        (100_000, POWER),
        (101_000, 7.0),
    ]
