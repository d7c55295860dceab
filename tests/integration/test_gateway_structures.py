"""A device that sends Templates and DataSets, through a real broker into both stores: births and data, with
aliases, refusals as dead letters, and the count of readings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    MOTOR,
    START_MS,
    FakePlatform,
    Publisher,
    eventually,
    letters,
    online,
)
from qilu_contract.catalogue.equipment import DataSetForm, Part, TemplateForm
from qilu_contract.errors import Reason
from qilu_contract.store import SeriesQuery
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_contract.wire.sparkplug_structures import pack_data_set, pack_template
from qilu_gateway.read import structures
from qilu_gateway.settings import Settings
from qilu_stores import open_store

FORMS = structures.forms_of(
    replace(
        MOTOR,
        templates=(TemplateForm("Drive", "drive", (Part("Power", "power_in"), Part("Speed", "speed"))),),
        data_sets=(DataSetForm("Log", "t", (Part("Vib", "vibration"),)),),
    )
)


@pytest.fixture(params=["duckdb", "influxdb"])
def anywhere(request: pytest.FixtureRequest, settings: Settings, tmp_path: Path) -> Settings:
    if request.param == "duckdb":
        return settings
    return settings.model_copy(update={"store": request.getfixturevalue("influxdb").url})


def drive(seconds: int, *, power: float, speed: int, birth: bool) -> Metric:
    ts_ms = START_MS + 1000 * seconds
    members = [
        Metric("Power", None, ts_ms, DataType.FLOAT, power),
        Metric("Speed", None, ts_ms, DataType.INT16, speed),
    ]
    packed = pack_template(members, "drive", datatypes=birth)
    return Metric("Drive" if birth else None, 1, ts_ms, DataType.TEMPLATE, packed)


def log(*rows: tuple[int, float], name: str | None = None) -> Metric:
    timed = [(START_MS + 1000 * seconds, value) for seconds, value in rows]
    packed = pack_data_set(["t", "Vib"], [DataType.DATETIME, DataType.FLOAT], timed)
    return Metric(name, 2, START_MS, DataType.DATASET, packed)


def message(kind: topics.MessageType, *metrics: Metric) -> tuple[str, bytes]:
    topic = topics.sparkplug(kind, COUNTY, ENTERPRISE, "m1")
    return topic, sparkplug.encode(Payload(START_MS, 1, metrics), datatypes=kind == "DBIRTH")


async def test_templates_and_data_sets_are_stored_as_signals(
    anywhere: Settings, platform: FakePlatform, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(structures.FORMS, "motor", FORMS)
    platform.register("m1")
    plain = Metric("current", 3, START_MS, DataType.FLOAT, 21.0)
    async with online(anywhere) as gateway:
        first = drive(0, power=10.0, speed=-5, birth=True)
        publisher.send(*message("DBIRTH", first, log((0, 1.0), name="Log"), plain))
        publisher.send(*message("DDATA", drive(1, power=11.5, speed=-42, birth=False)))
        publisher.send(
            *message("DDATA", plain._replace(name=None), log(*[(n, n / 10) for n in range(2, 12)]))
        )
        publisher.send(*message("DDATA", log((12, 1.5), (-(10**9), 2.5))))
        publisher.send(*message("DDATA", plain._replace(name="Pump", datatype=19, value=first.value)))
        counters = gateway.counters
        await eventually(lambda: counters.dead_lettered == 2, "the bad row and the undeclared Template")
        await eventually(lambda: counters.accepted == 1 + 1 + 11 + 2 + 1, "all accepted")
        await eventually(lambda: counters.in_flight == 0, "all settled")
        assert counters.stored == 14
    assert letters(anywhere) == {Reason.BAD_TIMESTAMP: 1, Reason.WRONG_TYPE: 1}
    async with open_store(anywhere.store) as store:
        names = ["power_in", "speed", "vibration", "current"]
        rows = await store.series(SeriesQuery("motor", {"unit": "m1"}, names, START_MS, START_MS + 60_000))
    found = {
        (row.ts_ms - START_MS) // 1000: {
            name: value for name, value in row.values.items() if value is not None
        }
        for row in rows
    }
    assert found == {
        0: {"power_in": 10.0, "speed": -5.0, "vibration": 1.0, "current": 21.0},
        1: {"power_in": 11.5, "speed": -42.0},
        **{n: {"vibration": n / 10} for n in range(2, 12)},
        12: {"vibration": 1.5},
    }
