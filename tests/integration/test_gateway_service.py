"""The gateway against a real broker and real stores. The platform is a fake (`gateway_world.py`)."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    MOTOR,
    START_MS,
    FakePlatform,
    Publisher,
    assert_adds_up,
    birth,
    data,
    eventually,
    get,
    letters,
    motor,
    online,
    stored,
    telemetry,
)
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError, Reason
from qilu_contract.store import SeriesQuery
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_gateway import statefile
from qilu_gateway.read import unborn
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters
from qilu_stores import open_store


async def test_telemetry_is_stored_and_the_unit_reported_once(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0, 11.25)))
        # The report of the first reading tells of the first hour's activity as well.
        publisher.send(*telemetry("m1", [motor(1), motor(3600)]))
        await eventually(lambda: gateway.counters.stored == 3, "three readings stored")
        await eventually(lambda: platform.first, "the first reading reported")
        await eventually(lambda: platform.active, "activity reported")
        text = (await get(gateway, "/metrics")).text
        assert "qilu_gateway_accepted_total 3.0" in text
        assert "qilu_gateway_in_flight 0.0" in text
        assert (await get(gateway, "/healthz")).json() == {"status": "ok", "troubles": []}
    assert platform.first == {"m1": START_MS}
    assert platform.counted == 1
    async with open_store(settings.store) as store:
        assert await store.count("motor") == 3
        row = await store.latest("motor", {"unit": "m1"})
        assert row is not None
        assert row.values == {k: v for k, v in motor(3600).items() if k != "ts"}
        assert await store.series(SeriesQuery("motor", {"unit": "m1"}, ["power_in"], START_MS, START_MS + 1))


@pytest.mark.parametrize("barred", [("units", "m1"), ("enterprises", ENTERPRISE)])
async def test_who_is_barred_is_refused_soon_and_not_when_the_answer_is_old(
    settings: Settings, platform: FakePlatform, publisher: Publisher, barred: tuple[str, str]
) -> None:
    platform.register("m1")
    platform.register("m2", enterprise="370202-e00002")
    other = topics.telemetry(COUNTY, "370202-e00002", "m2")
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor()))
        publisher.send(other, json.dumps(motor()).encode())
        await eventually(lambda: gateway.counters.stored == 2, "both stored")
        asked = platform.asked
        del platform.units["m1"]
        platform.barred.append(barred)
        seconds = iter(range(1, 10_000))

        def refused() -> bool:
            publisher.send(*telemetry("m1", motor(next(seconds))))
            return Reason.UNKNOWN_UNIT in gateway.dead_lettered_by_reason

        await eventually(refused, "refused")
        stored_before = gateway.counters.stored
        publisher.send(other, json.dumps(motor(1)).encode())
        await eventually(lambda: gateway.counters.stored == stored_before + 1, "the other one continues")
        assert platform.asked > asked


async def test_bad_input_becomes_dead_letters_and_the_stream_goes_on(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("other", enterprise="370202-e00002")
    soon_ms = time.time_ns() // 1_000_000 + 3_600_000
    sparkplug_topic = topics.sparkplug("DDATA", COUNTY, ENTERPRISE, "m1")
    no_time = sparkplug.encode(Payload(None, 1, [Metric("power_in", 1, None, DataType.FLOAT, 1.0)]))
    infinite = [Metric("power_in", 1, START_MS, DataType.FLOAT, float("inf"))]
    many = [motor(-second) for second in range(3000)]
    hour = sparkplug.encode(
        Payload(
            START_MS,
            1,
            [
                Metric(signal.name, None, START_MS - second * 1000, DataType.FLOAT, signal.nominal)
                for second in range(3600)
                for signal in MOTOR.signals
            ],
        )
    )
    bad = [
        ("qilu/v1/too/short", b"{}", Reason.BAD_TOPIC, 1),
        ("spBv1.0/370202/DDATA/UPPER/m1", b"", Reason.BAD_TOPIC, 1),
        (sparkplug_topic, b"\xff not protobuf", Reason.BAD_PAYLOAD, 1),
        (*telemetry("m1", [])[:1], b"not JSON", Reason.BAD_PAYLOAD, 1),
        (topics.CLOCK, b"noon", Reason.BAD_PAYLOAD, 1),
        (*telemetry("m1", motor())[:1], b"x" * 1_000_000, Reason.TOO_LARGE, 1),
        (*telemetry("m1", many), Reason.TOO_LARGE, 3000),
        (sparkplug_topic, hour, Reason.TOO_LARGE, 3600),
        (*telemetry("nobody", [motor(), motor(1)]), Reason.UNKNOWN_UNIT, 2),
        (*telemetry("other", motor()), Reason.WRONG_OWNER, 1),
        (topics.telemetry("370203", ENTERPRISE, "m1"), json.dumps(motor()).encode(), Reason.WRONG_OWNER, 1),
        (*telemetry("m1", {"ts": START_MS, "smell": 1}), Reason.UNKNOWN_SIGNAL, 1),
        (*telemetry("m1", {"ts": START_MS, "power_in": "much"}), Reason.WRONG_TYPE, 1),
        (*telemetry("m1", {"ts": START_MS, "power_in": True}), Reason.WRONG_TYPE, 1),
        (telemetry("m1", 0)[0], b'{"ts": %d, "power_in": NaN}' % START_MS, Reason.NOT_FINITE, 1),
        (sparkplug_topic, sparkplug.encode(Payload(START_MS, 1, infinite)), Reason.NOT_FINITE, 1),
        (*telemetry("m1", {"ts": "now", "power_in": 1.0}), Reason.BAD_TIMESTAMP, 1),
        (*telemetry("m1", {"ts": soon_ms, "power_in": 1.0}), Reason.BAD_TIMESTAMP, 1),
        (sparkplug_topic, no_time, Reason.BAD_TIMESTAMP, 1),
        (*data("nobody", 0, 1.0), Reason.UNKNOWN_UNIT, 1),
        (*data("other", 0, 1.0), Reason.WRONG_OWNER, 1),
    ]
    # One list with good and bad readings: each is judged by itself.
    mixed = [motor(0), {"ts": START_MS, "smell": 1}, "reading", motor(1)]
    expected = {Reason.UNKNOWN_SIGNAL: 1, Reason.BAD_PAYLOAD: 1}
    for _, _, reason, readings in bad:
        expected[reason] = expected.get(reason, 0) + readings
    async with online(settings) as gateway:
        for number, (topic, payload, _, _) in enumerate(bad):
            publisher.send(topic, payload)
            publisher.send(*telemetry("m1", motor(100 + number)))
        publisher.send(*telemetry("m1", mixed))
        good = len(bad) + 2
        await eventually(lambda: gateway.counters.stored == good, "all good readings stored")
        await eventually(lambda: gateway.counters.dead_lettered == sum(expected.values()), "all dead letters")
        assert gateway.dead_lettered_by_reason == {str(reason): n for reason, n in expected.items()}
        text = (await get(gateway, "/metrics")).text
        assert 'qilu_gateway_dead_lettered_total{reason="too_large"} 6601.0' in text
    assert letters(settings) == expected
    assert await stored(settings) == good
    with dead_letters.open_for_reading(settings.state / statefile.FILE_NAME) as connection:
        large = dead_letters.list_rows(connection, reason=Reason.TOO_LARGE)
        assert [row.readings for row in large] == [3600, 3000, 1]
        assert all(row.whole for row in large), "to be replayed"
        assert [row.payload for row in large] == [hour, json.dumps(many).encode(), b"x" * 1_000_000]
        [_, unknown] = dead_letters.list_rows(connection, reason=Reason.UNKNOWN_UNIT)
        assert json.loads(unknown.payload) == [motor(), motor(1)]
        assert unknown.readings == 2


async def test_the_runs_clock_moves_the_future(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    later_ms = time.time_ns() // 1_000_000 + 30 * 86_400_000
    async with online(settings) as gateway:
        publisher.send(topics.CLOCK, json.dumps({"now": later_ms, "speed": 1.0}).encode())
        publisher.send(*telemetry("m1", motor() | {"ts": later_ms}))
        await eventually(lambda: gateway.counters.stored == 1, "a reading of the run's present")
    # Messages queued at the broker are delivered before its retained clock.
    publisher.send(*telemetry("m1", motor() | {"ts": later_ms + 1}))
    async with online(settings) as gateway:
        await eventually(lambda: gateway.counters.accepted == 1, "the next one taken")
        await eventually(lambda: gateway.counters.stored == 1, "and stored")


async def test_aliases_survive_a_restart_and_births_are_readings(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send(*birth("m1", 0, first_alias=40))
        publisher.send(*data("m1", 1, 12.345, first_alias=40))
        await eventually(lambda: gateway.counters.stored == 2, "birth and data stored")
        assert gateway.counters.births == 1
    async with online(settings) as gateway:
        publisher.send(*data("m1", 2, 0.1, seq=3, first_alias=40))
        await eventually(lambda: gateway.counters.stored == 1, "data after the restart")
        assert gateway.counters.rebirth_requests == 0
    assert letters(settings) == {}
    async with open_store(settings.store) as store:
        rows = await store.series(
            SeriesQuery("motor", {"unit": "m1"}, ["power_in"], START_MS, START_MS + 60_000)
        )
    # float32 on the wire comes back as the decimal that was sent
    assert [(row.ts_ms, row.values["power_in"]) for row in rows] == [
        (START_MS, 11.0),
        (START_MS + 1000, 12.345),
        (START_MS + 2000, 0.1),
    ]


async def test_what_dies_is_stale_at_the_platform_until_it_is_heard_of_again(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    def node(kind: topics.MessageType, bd_seq: int) -> tuple[str, bytes]:
        metric = Metric("bdSeq", None, START_MS, DataType.INT64, bd_seq)
        return topics.sparkplug(kind, COUNTY, ENTERPRISE), sparkplug.encode(Payload(START_MS, 0, [metric]))

    for unit in ("m1", "m2"):
        platform.register(unit)
    async with online(settings) as gateway:
        publisher.send_all([node("NBIRTH", 7), birth("m1"), birth("m2")])
        await eventually(lambda: set(platform.active) == {"m1", "m2"}, "active")
        publisher.send(*node("NDEATH", 6))  # the will of an older connection
        dead = topics.sparkplug("DDEATH", COUNTY, ENTERPRISE, "m2")
        publisher.send(dead, sparkplug.encode(Payload(START_MS, 3, [])))
        await eventually(lambda: platform.gone == ["m2"], "one gone")
        publisher.send(*node("NDEATH", 7))
        await eventually(lambda: sorted(platform.gone) == ["m1", "m2", "m2"], "both gone")
        platform.active.clear()
        publisher.send_all([node("NBIRTH", 8), birth("m1", 1)])
        await eventually(lambda: set(platform.active) == {"m1"}, "active again, within the hour")
        assert gateway.counters.dead_lettered == 0


async def test_data_without_a_birth_asks_for_one_rebirth_and_waits_for_it(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("m2")
    async with online(settings) as gateway:
        for second in range(20):
            publisher.send(*data("m1", second, 1.0 + second, seq=second))
        publisher.send(*telemetry("m2", motor()))
        await eventually(lambda: gateway.counters.stored == 1, "other messages are stored")
        await eventually(lambda: publisher.commands, "a command to the edge node")
        assert gateway.counters.accepted == 1
        text = (await get(gateway, "/metrics")).text
        assert "qilu_gateway_waiting_for_birth 20.0" in text
    assert letters(settings) == {}
    async with online(settings) as gateway:  # none of it was acknowledged, nor what came after it
        await eventually(lambda: len(publisher.commands) == 2, "another request")
        publisher.send(*birth("m1", 20))
        publisher.send(*data("m1", 21, 2.0))
        await eventually(lambda: gateway.counters.stored == 1 + 22, "birth and data stored")
        assert gateway.counters.rebirth_requests == 1
    assert publisher.commands == [topics.sparkplug("NCMD", COUNTY, ENTERPRISE)] * 2
    assert letters(settings) == {}
    async with open_store(settings.store) as store:
        found = await store.series(
            SeriesQuery("motor", {"unit": "m1"}, ["power_in"], START_MS, START_MS + 20_000)
        )
        assert [row.values["power_in"] for row in found] == [1.0 + second for second in range(20)]


async def test_data_whose_birth_never_comes_is_a_dead_letter_in_the_end(
    settings: Settings, platform: FakePlatform, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unborn, "WAIT_S", 0.1)
    platform.register("m1")
    async with online(settings) as gateway:
        for second in range(20):
            publisher.send(*data("m1", second, 1.0, seq=second))
        await eventually(lambda: gateway.counters.dead_lettered == 20, "dead letters")
        publisher.send(*birth("m1", 20))
        await eventually(lambda: gateway.counters.stored == 1, "the birth is stored")
    assert letters(settings) == {Reason.NO_BIRTH: 20}


async def test_without_a_spool_a_store_that_is_away_stalls_and_loses_nothing(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    settings = settings.model_copy(update={"store": influxdb.url, "spool_max_bytes": 0})
    state = topics.state(settings.host_id)
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: gateway.counters.stored == 1, "the first stored")
        influxdb.kill()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(1, 501)])
        await eventually(lambda: not gateway.online, "offline")
        await eventually(lambda: publisher.states and not publisher.states[-1]["online"], f"{state} offline")
        assert gateway.counters.stored == 1
        assert gateway.counters.dead_lettered == 0
        assert "store" in gateway.troubles()
        assert_adds_up(gateway)
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 501, "everything stored")
        await eventually(lambda: gateway.online, "online again")
        assert gateway.counters.redelivered == 0
    assert await stored(settings) == 501
    assert publisher.states[-1]["online"] is False  # the last STATE is offline


async def test_without_a_spool_a_store_that_is_away_at_the_start_is_waited_for(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    influxdb.stop()
    settings = settings.model_copy(update={"store": influxdb.url, "spool_max_bytes": 0})
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.troubles() == ["store"], "everything but the store")
        publisher.send(*telemetry("m1", motor()))
        assert not gateway.online
        influxdb.start()
        await eventually(lambda: gateway.online and gateway.counters.stored == 1, "stored")


async def test_points_that_the_store_refuses_are_dead_letters_and_the_others_are_stored(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    platform.register("b1", "boiler")
    boiler = {signal.name: signal.nominal for signal in CATALOGUE["boiler"].signals}
    async with httpx.AsyncClient(base_url=influxdb.http, trust_env=False) as http:
        await http.post("/query", data={"q": f"CREATE DATABASE {influxdb.database}"})
        line = f'motor,unit=x power_in="text" {START_MS}'  # so that numbers conflict with the field's type
        answer = await http.post(
            "/write", params={"db": influxdb.database, "precision": "ms"}, content=line.encode()
        )
        assert answer.status_code == 204
    settings = settings.model_copy(update={"store": influxdb.url})
    async with online(settings) as gateway:
        publisher.send_all(
            [telemetry("b1", {"ts": START_MS + second, **boiler}) for second in range(50)]
            + [telemetry("m1", motor(second)) for second in range(3)]
            + [telemetry("b1", {"ts": START_MS + second, **boiler}) for second in range(50, 100)]
        )
        await eventually(lambda: gateway.counters.stored == 100, "the boiler's readings stored")
        await eventually(lambda: gateway.counters.dead_lettered == 3, "the motor's readings refused")
        await eventually(lambda: platform.counted == 1, "the boiler reported")
    assert letters(settings) == {Reason.REFUSED_BY_STORE: 3}
    assert await stored(settings, "boiler") == 100
    assert list(platform.first) == ["b1"]


async def test_a_platform_that_is_away_means_wait(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("m2")
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: platform.counted == 1, "the first unit reported")
        platform.stop()
        publisher.send_all([telemetry("m2", motor(second)) for second in range(10)])
        publisher.send_all([telemetry("m1", motor(second)) for second in range(1, 10)])
        await eventually(lambda: gateway.counters.stored == 10, "the known unit's readings stored")
        assert gateway.counters.in_flight == 10
        assert gateway.counters.dead_lettered == 0
        assert_adds_up(gateway)
        platform.start()
        await eventually(lambda: gateway.counters.stored == 20, "the waiting readings stored")
        await eventually(lambda: platform.counted == 2, "both units reported")
    assert letters(settings) == {}
    assert await stored(settings) == 20


async def test_a_refused_key_keeps_the_gateway_offline(
    settings: Settings, platform: FakePlatform, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", "another")
    platform.register("m1")
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.troubles() == ["platform"], "everything but the platform")
        publisher.send(*telemetry("m1", motor()))
        await eventually(lambda: gateway.counters.in_flight == 1, "the reading held")
        assert not gateway.online
        assert (await get(gateway, "/healthz")).status_code == 503


async def test_what_comes_again_while_in_flight_counts_once(
    settings: Settings, platform: FakePlatform, mosquitto: Any, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    settings = settings.model_copy(update={"store": influxdb.url, "spool_max_bytes": 0})
    async with online(settings) as gateway:
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(100)])
        await eventually(lambda: gateway.counters.in_flight == 100, "in flight")
        mosquitto.stop()
        await eventually(lambda: "broker" in gateway.troubles(), "the broker away")
        mosquitto.start()
        await eventually(lambda: gateway.counters.redelivered == 100, "delivered again")
        assert gateway.counters.accepted == 100
        assert_adds_up(gateway)
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 100, "stored")
        await eventually(lambda: gateway.online, "online")
    # Everything was acknowledged: a new start finds nothing.
    async with online(settings) as gateway:
        publisher = Publisher(mosquitto)
        publisher.send(*telemetry("m1", motor(100)))
        await eventually(lambda: gateway.counters.stored == 1, "the new one stored")
        publisher.close()
        assert gateway.counters.accepted == 1
    assert await stored(settings) == 101


async def test_one_state_folder_serves_one_gateway(settings: Settings, platform: FakePlatform) -> None:
    async with GatewayService(settings):
        second = settings.model_copy(update={"store": "duckdb:///elsewhere.duckdb"})
        with pytest.raises(ConfigError, match="used by another gateway"):
            async with GatewayService(second):
                pass


async def test_of_two_gateways_with_one_host_id_the_first_says_so_and_stops(
    settings: Settings, platform: FakePlatform, publisher: Publisher, tmp_path: Path
) -> None:
    platform.register("m1")
    first = GatewayService(settings)
    running = asyncio.create_task(first.run())
    await eventually(lambda: first.online, "the first online")
    store = f"duckdb:///{tmp_path / 'second.duckdb'}"
    second = settings.model_copy(update={"state": tmp_path / "second", "store": store})
    async with online(second) as gateway:
        with pytest.raises(ConfigError, match="Another gateway has taken over"):
            await asyncio.wait_for(running, 30)
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: gateway.counters.stored == 1, "stored by the second")
        await eventually(lambda: publisher.states and publisher.states[-1]["online"], "still online")


async def test_a_restart_under_two_thousand_edge_nodes_asks_none_of_them_for_a_rebirth(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    """Their aliases are in the state file, and gaps right after a connection are no reason."""
    nodes = [f"{COUNTY}-e{number:05d}" for number in range(1, 2001)]
    for node in nodes:
        platform.register(f"{node}-m", enterprise=node)

    def of(message: tuple[str, bytes], node: str) -> tuple[str, bytes]:
        return message[0].replace(ENTERPRISE, node).replace("/unit", f"/{node}-m"), message[1]

    async with online(settings) as gateway:
        publisher.send_all([of(birth("unit", 0), node) for node in nodes])
        await eventually(lambda: gateway.counters.stored == 2000, "all born")
        assert gateway.counters.births == 2000
    async with online(settings) as gateway:
        for turn in (1, 2):
            publisher.send_all([of(data("unit", turn, 1.0, seq=50 * turn), node) for node in nodes])
        await eventually(lambda: gateway.counters.stored == 4000, "all data stored")
        assert gateway.counters.rebirth_requests == 0
    assert publisher.commands == []
    assert letters(settings) == {}


async def test_a_gap_in_sequence_numbers_asks_for_a_rebirth(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send(*birth("m1", 0))  # sequence number 1
        publisher.send(*data("m1", 1, 1.0, seq=2))
        await eventually(lambda: gateway.counters.stored == 2, "in order")
        assert gateway.counters.sequence_gaps == 0

        def asked() -> bool:
            return bool(publisher.commands)

        # Right after a connection was made gaps are no reason; later they are.
        seq, second = 2, 2
        while not asked():
            seq, second = (seq + 2) % 256, second + 1
            publisher.send(*data("m1", second, 1.0, seq=seq))
            await asyncio.sleep(0.5)
            assert second < 120
        assert gateway.counters.sequence_gaps >= 1
    assert publisher.commands == [topics.sparkplug("NCMD", COUNTY, ENTERPRISE)]
