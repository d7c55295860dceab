"""The gateway while the store is unavailable or refuses: the spool, and the store's answers."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
import pytest
from fake_influx import STORED, Answer, FakeInflux
from gateway_world import (
    START_MS,
    FakePlatform,
    Publisher,
    assert_adds_up,
    eventually,
    eventually_async,
    get,
    letters,
    motor,
    online,
    stored,
    telemetry,
)
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import Reason
from qilu_contract.store import SeriesQuery
from qilu_gateway import statefile
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters
from qilu_stores import open_store


async def test_while_the_store_is_away_readings_are_spooled_and_reported_only_once_they_are_stored(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    for unit in ("m1", "m2", "m3"):
        platform.register(unit)
    settings = settings.model_copy(update={"store": influxdb.url})
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: platform.counted == 1, "the first reported")
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(1, 301)])
        publisher.send_all([telemetry("m2", [motor(second) for second in range(30, 10, -1)])])
        await eventually(lambda: gateway.counters.spooled == 320, "spooled")
        assert_adds_up(gateway)
        assert gateway.online
        assert gateway.troubles() == []
        text = (await get(gateway, "/metrics")).text
        assert "qilu_gateway_spooled 320.0" in text
        assert gateway.counters.in_flight == 0
    assert platform.counted == 1  # nothing is counted before it is stored
    # Another process continues from the files.
    async with online(settings) as gateway:
        assert gateway.counters.recovered == gateway.counters.spooled == 320
        publisher.send(*telemetry("m3", motor(0)))
        await eventually(lambda: gateway.counters.spooled == 321, "spooled too")
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 321, "all stored")
        await eventually(lambda: platform.counted == 3, "all reported")
        publisher.send(*telemetry("m2", motor(40)))
        await eventually(lambda: gateway.counters.stored == 322, "live data goes straight to the store")
        assert gateway.counters.spooled == 0
    assert platform.first == {"m1": START_MS, "m2": START_MS + 11_000, "m3": START_MS}
    assert await stored(settings) == 1 + 300 + 20 + 1 + 1


async def test_what_a_spool_holds_that_is_not_open_yet_is_not_said_to_be_nothing(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    settings = settings.model_copy(update={"store": influxdb.url})
    async with online(settings) as gateway:
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(20)])
        await eventually(lambda: gateway.counters.spooled == 20, "spooled")
    file, away = settings.state / "spool.sqlite", settings.state / "away"
    file.rename(away)
    file.mkdir()  # cannot be opened
    async with GatewayService(settings) as gateway:
        text = (await get(gateway, "/metrics")).text
        assert "qilu_gateway_unaccounted 0.0" in text
        assert "qilu_gateway_spool" not in text
        file.rmdir()
        away.rename(file)
        await eventually(lambda: gateway.counters.recovered == 20, "found")
        assert "qilu_gateway_spooled 20.0" in (await get(gateway, "/metrics")).text
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 20, "all stored")


async def test_a_full_spool_stalls_and_loses_nothing(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    update = {"store": influxdb.url, "spool_max_bytes": 20_000, "spool_min_free_bytes": 0, "batch_size": 50}
    settings = settings.model_copy(update=update)
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: gateway.counters.stored == 1, "the first stored")
        influxdb.stop()
        for start in range(1, 3001, 100):
            numbers = range(start, start + 100)
            publisher.send_all([telemetry("m1", motor(number, number * 0.123457)) for number in numbers])
        await eventually(lambda: "spool" in gateway.troubles(), "the spool nearly full")
        await eventually(lambda: not gateway.online, "offline")
        await eventually(lambda: gateway.counters.in_flight > 0, "no more acknowledged")
        assert 0 < gateway.counters.spooled < 3000
        assert_adds_up(gateway)
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 3001, "everything stored")
        await eventually(lambda: gateway.online, "online again")
        assert gateway.counters.spooled == 0
    assert await stored(settings) == 3001


async def test_spooled_readings_that_the_store_refuses_become_dead_letters_that_can_be_published_again(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    platform.register("b1", "boiler")
    boiler = {signal.name: signal.nominal for signal in CATALOGUE["boiler"].signals}
    async with open_store(influxdb.url) as store:
        await store.ping()
    async with httpx.AsyncClient(base_url=influxdb.http, trust_env=False) as http:
        line = f'motor,unit=x power_in="text" {START_MS}'
        await http.post("/write", params={"db": influxdb.database, "precision": "ms"}, content=line.encode())
    settings = settings.model_copy(update={"store": influxdb.url})
    async with online(settings) as gateway:
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(3)])
        publisher.send_all([telemetry("b1", {"ts": START_MS + second, **boiler}) for second in range(100)])
        await eventually(lambda: gateway.counters.spooled == 103, "spooled")
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 100, "the boiler's readings stored")
        assert gateway.counters.dead_lettered == 3
        await eventually(lambda: platform.counted == 1, "the boiler reported")
    assert list(platform.first) == ["b1"]
    with dead_letters.open_for_reading(settings.state / statefile.FILE_NAME) as connection:
        rows = dead_letters.list_rows(connection)
    assert [row.reason for row in rows] == [Reason.REFUSED_BY_STORE] * 3
    assert (rows[-1].topic, json.loads(rows[-1].payload)) == (telemetry("m1", 0)[0], motor(0))


def with_store(settings: Settings, fake: FakeInflux, **more: Any) -> Settings:
    return settings.model_copy(update={"store": fake.url, **more})


@pytest.mark.parametrize("status", [400, 422])
async def test_only_the_bad_points_of_a_refused_batch_are_dead_letters(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux, status: int
) -> None:
    platform.register("m1")
    platform.register("m2")

    def refuse(lines: list[str]) -> Answer:
        bad = [line for line in lines if "unit=m2" in line]
        fake_influx.lines.update(set(lines) - set(bad))  # as InfluxDB does: the good ones are stored
        return (status, {}, '{"error": "partial write: field type conflict"}') if bad else STORED

    fake_influx.answer = refuse
    async with online(with_store(settings, fake_influx)) as gateway:
        messages = [telemetry("m1", motor(second)) for second in range(500)]
        messages[100:100] = [telemetry("m2", motor(second)) for second in range(3)]
        publisher.send_all(messages)
        await eventually(lambda: gateway.counters.stored == 500, "the good ones stored")
        assert gateway.dead_lettered_by_reason == {"refused_by_store": 3}
    assert len(fake_influx.lines) == 500
    assert letters(settings) == {Reason.REFUSED_BY_STORE: 3}


async def test_a_store_that_wants_smaller_batches_gets_them(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux
) -> None:
    platform.register("m1")
    fake_influx.answer = lambda lines: (413, {}, "too large") if len(lines) > 40 else STORED
    async with online(with_store(settings, fake_influx)) as gateway:
        publisher.send(*telemetry("m1", [motor(second) for second in range(300)]))
        await eventually(lambda: gateway.counters.stored == 300, "stored in parts")
        assert gateway.counters.dead_lettered == 0
    assert len(fake_influx.lines) == 300


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_store_is_left_alone_as_long_as_it_asks_for(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux, status: int
) -> None:
    platform.register("m1")
    asked: list[float] = []

    def busy(_: list[str]) -> Answer:
        asked.append(time.monotonic())
        return (status, {"Retry-After": "3"}, "busy") if len(asked) == 1 else STORED

    async with online(with_store(settings, fake_influx)) as gateway:
        fake_influx.answer = busy
        await eventually(lambda: asked, "something written")
        publisher.send_all([telemetry("m1", motor(second)) for second in range(10)])
        await eventually(lambda: gateway.counters.spooled == 10, "spooled meanwhile")
        await eventually(lambda: gateway.counters.stored == 10, "stored")
        assert gateway.online
    assert asked[1] - asked[0] >= 2.9


async def is_healthy(gateway: GatewayService) -> bool:
    health: object = (await get(gateway, "/healthz")).json()
    return health == {"status": "ok", "troubles": []}


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_refused_credentials_keep_the_data_and_are_told_while_they_are_refused(
    settings: Settings,
    platform: FakePlatform,
    publisher: Publisher,
    fake_influx: FakeInflux,
    status: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    platform.register("m1")
    async with online(with_store(settings, fake_influx)) as gateway:
        fake_influx.answer = lambda _: (status, {}, "no")
        publisher.send_all([telemetry("m1", motor(second)) for second in range(10)])
        await eventually(lambda: gateway.counters.spooled == 10, "kept")
        await eventually(lambda: gateway.counters.store_errors >= 2, "tried again")
        # On a busy machine a write may also take too long, which is another trouble of the store.
        await eventually(lambda: f"answered {status}" in gateway.store_trouble, "refused")
        if status != 404:
            await eventually(lambda: gateway.counters.store_denied >= 2, "refused again")
            assert "qilu_gateway_store_denied_total 0.0" not in (await get(gateway, "/metrics")).text
        told = (await get(gateway, "/healthz")).json()["reasons"]["store"]
        assert f"answered {status}" in told
        assert "'fake'" in told or status == 401
        assert told == gateway.store_trouble
        logged = capsys.readouterr()  # on the one or the other, as the tests before left it
        assert (logged.out + logged.err).count(told) == 1
        fake_influx.answer = lambda _: STORED
        await eventually(lambda: gateway.counters.stored == 10, "stored")
        await eventually_async(lambda: is_healthy(gateway), "healthy")
    assert letters(settings) == {}


async def test_a_store_with_an_inner_error_is_tried_again(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux
) -> None:
    platform.register("m1")
    without = with_store(settings, fake_influx, spool_max_bytes=0)
    async with online(without) as gateway:
        answers = iter([(500, {}, "engine trouble")] * 3)
        fake_influx.answer = lambda _: next(answers, STORED)
        publisher.send_all([telemetry("m1", motor(second)) for second in range(10)])
        await eventually(lambda: gateway.counters.stored == 10, "stored")
        assert gateway.counters.store_errors >= 3
    assert letters(settings) == {}


async def test_a_store_that_hangs_holds_nobody_up(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux
) -> None:
    platform.register("m1")
    wake = threading.Event()

    def hang(_: list[str]) -> Answer:
        wake.wait(60)
        return STORED

    async with online(with_store(settings, fake_influx)) as gateway:
        fake_influx.answer = hang
        publisher.send_all([telemetry("m1", motor(second)) for second in range(10)])
        await eventually(lambda: gateway.counters.spooled == 10, "spooled")
        assert gateway.online
        publisher.send(*telemetry("m1", motor(10)))
        await eventually(lambda: gateway.counters.spooled == 11, "spooled without waiting again")
        fake_influx.answer = lambda _: STORED
        wake.set()
        await eventually(lambda: gateway.counters.stored == 11, "stored")
    assert len(fake_influx.lines) == 11


@pytest.mark.parametrize("spooling", [True, False])
async def test_a_reading_with_which_the_store_fails_for_ever_holds_no_other_up(
    settings: Settings,
    platform: FakePlatform,
    publisher: Publisher,
    fake_influx: FakeInflux,
    spooling: bool,
) -> None:
    platform.register("m1")
    platform.register("m2")
    fake_influx.answer = lambda lines: (
        (500, {}, "engine trouble") if any("unit=m2" in line for line in lines) else STORED
    )
    more = {} if spooling else {"spool_max_bytes": 0}
    async with online(with_store(settings, fake_influx, **more)) as gateway:
        messages = [telemetry("m1", motor(second)) for second in range(100)]
        messages[40:40] = [telemetry("m2", motor(0))]
        publisher.send_all(messages)
        await eventually(lambda: gateway.counters.stored == 100, "the good ones stored")
        await eventually(lambda: gateway.counters.dead_lettered == 1, "the other one a dead letter")
        publisher.send(*telemetry("m1", motor(100)))
        await eventually(lambda: gateway.counters.stored == 101, "live data flows")
        assert gateway.counters.spooled == gateway.counters.unaccounted == 0
        assert gateway.online
    assert len(fake_influx.lines) == 101
    assert letters(settings) == {Reason.REFUSED_BY_STORE: 1}


async def test_nobody_writes_while_the_store_wants_to_be_left_alone(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux
) -> None:
    platform.register("m1")
    busy_since: list[float] = []
    fake_influx.every_write = lambda: calls.append(time.monotonic())
    calls: list[float] = []

    def busy(_: list[str]) -> Answer:
        if busy_since:
            return STORED
        busy_since.append(time.monotonic())
        return 429, {"Retry-After": "5"}, "busy"

    async with online(with_store(settings, fake_influx)) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: gateway.counters.stored == 1, "stored")
        fake_influx.answer = busy
        await eventually(lambda: busy_since, "busy")
        # Readings and, with them, roll-ups and alarms are there to be written.
        publisher.send_all([telemetry("m1", motor(second * 60)) for second in range(1, 100)])
        await eventually(lambda: gateway.counters.stored == 100, "stored after all")
    assert not [at for at in calls if busy_since[0] + 0.2 < at < busy_since[0] + 4.9]


async def test_batches_follow_the_stores_pace(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux
) -> None:
    platform.register("m1")
    batches: list[int] = []

    def tired(lines: list[str]) -> Answer:
        """Slow until the gateway sends small batches."""
        if len(lines) >= 2400:
            batches.append(len(lines))
            if min(batches) > 3000:
                time.sleep(1.2)
        return STORED

    fake_influx.answer = tired
    async with online(with_store(settings, fake_influx, batch_size=5000)) as gateway:
        publisher.send_all([telemetry("m1", [motor(n * 10 + k) for k in range(10)]) for n in range(5000)])
        await eventually(lambda: gateway.counters.stored == 50_000, "stored")
        assert gateway.counters.spooled == 0
        full = batches[:-1]  # the last may not have filled
        assert full[0] >= 5000  # a batch ends with the message that fills it
        smallest = full.index(min(full))
        assert full[smallest] < 3000
        assert max(full[smallest:]) > full[smallest]
        assert "qilu_gateway_batch_size" in (await get(gateway, "/metrics")).text


async def test_a_roll_up_that_the_store_refuses_takes_no_other_with_it(
    settings: Settings, platform: FakePlatform, publisher: Publisher, fake_influx: FakeInflux
) -> None:
    platform.register("m1")
    names = ("fleet", "fleet_hourly")
    bad = tuple(f"{name},level={level}" for name in names for level in ("county", "industry"))

    def refuse(lines: list[str]) -> Answer:
        return (
            (400, {}, '{"error": "partial write"}') if any(line.startswith(bad) for line in lines) else STORED
        )

    fake_influx.answer_own = refuse
    async with online(with_store(settings, fake_influx)) as gateway:
        publisher.send_all([telemetry("m1", motor(second)) for second in range(10)])
        await eventually(lambda: gateway.counters.stored == 10, "stored")
    levels = {line.split("level=")[1].split(",")[0] for line in fake_influx.own_lines if "level=" in line}
    assert levels == {"province", "city"}


async def test_what_was_spooled_is_in_the_roll_ups_and_alarms_too(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    async with online(settings.model_copy(update={"store": influxdb.url})) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: gateway.counters.stored == 1, "stored")
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(1, 100)])
        publisher.send(*telemetry("m1", motor(100) | {"vibration": 99.0}))
        await eventually(lambda: gateway.counters.spooled == 100, "spooled")
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 101, "stored after all")
    async with open_store(influxdb.url) as store:
        wanted = {"level": "province", "signal": "power_in"}
        rows = await store.series(SeriesQuery("fleet", wanted, ["n"], 0, START_MS + 600_000))
        assert sum(int(row.values["n"]) for row in rows) == 101
        assert await store.count("alarm") == 1
