"""From messages to readings."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract import sparkplug_b_pb2
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import MIN_TIME_MS, Reading, Value
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_gateway.admit.units import Tags, Units
from qilu_gateway.read import births, births_upgrade, checking, decoding
from qilu_gateway.read.births import Births
from qilu_gateway.read.checking import SIGNALS, check, check_all
from qilu_gateway.read.decoded import Decoded
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.statefile import StateFile

NODE = ("370202", "370202-e00001")
UNIT = "370202-motor-0000001"
T0 = 1_700_000_000_000
MOTOR = CATALOGUE["motor"]


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[StateFile]:
    async with StateFile(tmp_path, [births.SCHEMA]) as opened:
        yield opened


@pytest.fixture
def decoder(state: StateFile) -> Decoder:
    return Decoder(Births(state), 4096)


def message(decoder: Decoder, type_: topics.MessageType, payload: Payload, dup: bool = False) -> Decoded:
    device = UNIT if type_.startswith("D") else None
    return decoder.decode(topics.sparkplug(type_, *NODE, device), sparkplug.encode(payload), dup=dup)


def birth(names: dict[int, str], seq: int = 1) -> Payload:
    metrics = [Metric(name, alias, T0 + alias, DataType.FLOAT, float(alias)) for alias, name in names.items()]
    return Payload(T0, seq, metrics)


def data(values: dict[int, float], ts_ms: int | None = T0, seq: int = 2) -> Payload:
    return Payload(ts_ms, seq, [Metric(alias=alias, value=value) for alias, value in values.items()])


def reasons(decoded: Decoded) -> list[Reason]:
    return [bad.reason for bad in decoded.refused]


async def test_a_births_values_are_readings_grouped_by_their_own_time(decoder: Decoder) -> None:
    metrics = [
        Metric("power_in", 1, T0, DataType.FLOAT, 11.0),
        Metric("speed", 2, T0, DataType.FLOAT, 1470.0),
        Metric("winding_temp", 3, T0 - 5000, DataType.FLOAT, 85.0),
        Metric("vibration", 4, T0 - 5000, DataType.FLOAT, None),
        Metric("Properties/Maker", None, T0, DataType.STRING, "Jinan"),
    ]
    decoded = message(decoder, "DBIRTH", Payload(T0, 1, metrics))
    assert decoded.readings == [
        Reading(UNIT, T0, {"power_in": 11.0, "speed": 1470.0}),
        Reading(UNIT, T0 - 5000, {"winding_temp": 85.0}),
    ]
    assert not decoded.refused
    found = message(decoder, "DDATA", data({4: 1.5, 2: 1480.0}, T0 + 1000))
    assert found.readings == [Reading(UNIT, T0 + 1000, {"vibration": 1.5, "speed": 1480.0})]


async def test_unknown_aliases_ask_for_a_rebirth_unless_the_message_came_again(decoder: Decoder) -> None:
    first = message(decoder, "DDATA", data({1: 1.0}))
    assert (reasons(first), first.rebirth) == ([Reason.NO_BIRTH], True)
    again = message(decoder, "DDATA", data({1: 1.0}), dup=True)
    assert (reasons(again), again.rebirth) == ([Reason.NO_BIRTH], False)
    message(decoder, "DBIRTH", birth({1: "power_in"}))
    assert not message(decoder, "DDATA", data({1: 1.0})).refused
    other = message(decoder, "DDATA", data({1: 1.0, 9: 2.0}))
    assert (reasons(other), other.rebirth, other.readings) == ([Reason.NO_BIRTH], True, [])


async def test_integers_without_a_type_get_the_births(decoder: Decoder) -> None:
    metrics = [Metric("speed", 1, T0, DataType.INT32, 5)]
    message(decoder, "DBIRTH", Payload(T0, 1, metrics))
    typed = sparkplug.encode(Payload(T0, 2, [Metric(alias=1, datatype=DataType.INT32, value=-3)]))
    untyped = sparkplug_b_pb2.Payload.FromString(typed)
    untyped.metrics[0].ClearField("datatype")
    topic = topics.sparkplug("DDATA", *NODE, UNIT)
    for body in (typed, untyped.SerializeToString()):
        assert decoder.decode(topic, body, dup=False).readings == [Reading(UNIT, T0, {"speed": -3})]


async def test_gaps_in_sequence_numbers_are_noticed_once(decoder: Decoder) -> None:
    message(decoder, "NBIRTH", Payload(T0, 254, []))
    gaps = [
        message(decoder, "DBIRTH", birth({1: "speed"}, seq)).gap for seq in (255, 0, 1)
    ]  # wraps around at 256
    assert gaps == [False, False, False]
    assert message(decoder, "DDATA", data({1: 1.0}, seq=3)).gap
    assert not message(decoder, "DDATA", data({1: 1.0}, seq=4)).gap
    assert not message(decoder, "DDATA", data({1: 1.0}, seq=2), dup=True).gap
    message(decoder, "NDEATH", Payload(T0, None, []))
    assert not message(decoder, "DDATA", data({1: 1.0}, seq=77)).gap


async def test_what_hosts_say_to_others_is_not_ours(decoder: Decoder) -> None:
    for topic in (
        "spBv1.0/STATE/qilu",
        topics.sparkplug("NCMD", *NODE),
        topics.sparkplug("DCMD", *NODE, UNIT),
    ):
        decoded = decoder.decode(topic, b"anything", dup=False)
        assert (decoded.readings, decoded.refused, decoded.birth) == ([], [], None)


async def test_an_edge_node_has_no_signals_of_its_own(decoder: Decoder) -> None:
    metrics = [
        Metric("bdSeq", 0, T0, DataType.INT64, 1),
        Metric("Node Control/Rebirth", 1, T0, DataType.BOOLEAN, False),
        Metric("power_in", 2, T0, DataType.FLOAT, 1.0),
    ]
    assert not message(decoder, "NBIRTH", Payload(T0, 0, metrics)).refused
    assert not message(decoder, "NDATA", Payload(T0, 1, [Metric(alias=1, value=True)])).refused
    assert reasons(message(decoder, "NDATA", data({2: 1.0}))) == [Reason.UNKNOWN_SIGNAL]


async def test_large_payloads_are_refused_whatever_they_hold(decoder: Decoder) -> None:
    decoded = decoder.decode(topics.telemetry(*NODE, UNIT), b"[" * 5000, dup=False)
    assert reasons(decoded) == [Reason.TOO_LARGE]
    assert decoded.unit == UNIT


@given(topic=st.text(max_size=60), payload=st.binary(max_size=200))
def test_anything_at_all_is_a_reading_or_a_refusal(topic: str, payload: bytes) -> None:
    decoder = Decoder(Births(_Empty()), 100)  # type: ignore[arg-type]
    tail = topic.replace("/", "-")
    for text in (
        topic,
        f"qilu/v1/{tail}",
        topics.telemetry(*NODE, UNIT),
        topics.sparkplug("DDATA", *NODE, UNIT),
    ):
        decoded = decoder.decode(text, payload, dup=False)
        assert all(isinstance(bad.reason, Reason) for bad in decoded.refused)


@given(st.binary(max_size=300))
def test_any_metrics_at_all_are_readings_or_refusals(noise: bytes) -> None:
    decoder = Decoder(Births(_Empty()), 1000)  # type: ignore[arg-type]
    body = sparkplug.encode(birth({1: "power_in"})) + noise
    decoder.decode(topics.sparkplug("DBIRTH", *NODE, UNIT), body, dup=False)
    decoder.decode(topics.sparkplug("DDATA", *NODE, UNIT), noise, dup=False)


class _Empty:
    """A state file in which nothing is found."""

    def read(self, _query: str, _values: tuple[object, ...]) -> None:
        return None

    def read_all(self, _query: str, _values: tuple[object, ...]) -> list[tuple[object, ...]]:
        return []


async def test_births_outlive_the_process(state: StateFile) -> None:
    before = Births(state)
    table = before.learn((*NODE, UNIT), {1: ("power_in", 9)})
    await state.write(lambda connection: before.save(connection, [table]))
    before.saved(table)
    found = Births(state).find((*NODE, UNIT))
    assert found is not None
    assert found.aliases == {1: ("power_in", 9)}
    assert not found.ambiguous


async def test_births_beyond_those_that_are_kept_in_memory_are_looked_up(
    state: StateFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qilu_gateway.read.layouts.MAX_LAYOUTS", 1)
    units, numbers = Units(), range(3)
    ids = [f"{NODE[1]}-m{number}" for number in numbers]
    for id_ in ids:
        units.add("motor", Tags(NODE[0][:4], NODE[0], "C34", NODE[1], id_))
    before = Births(state, units)
    for alias, id_ in enumerate(ids):
        table = before.learn((*NODE, id_), {1: ("power_in", 9), 2 + alias: ("speed", 9)})
        await state.write(lambda connection, table=table: before.save(connection, [table]))  # type: ignore[misc]
        before.saved(table)
    after = Births(state, units)
    found = after.durable(np.arange(3, dtype=np.int32), history=False).layouts
    assert found.tolist() == [1, births.FILED, births.FILED]
    for known in (before, after):
        tables = [known.find((*NODE, id_)) for id_ in ids]
        assert [table and table.aliases.get(2 + alias) for alias, table in enumerate(tables)] == [
            ("speed", 9)
        ] * 3
        assert tables[2] is not None
        known.died(tables[2])
        assert known.find((*NODE, ids[2])).session == births.DEAD  # type: ignore[union-attr]


async def test_births_that_an_earlier_version_kept_are_taken_over(state: StateFile) -> None:
    table = msgspec.msgpack.encode({1: ("power_in", 9), "Properties/Serial": ("Properties/Serial", 12)})
    keys = [(*NODE, UNIT), (*NODE, ""), (*NODE, "dead")]

    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "CREATE TABLE births (county TEXT, node TEXT, device TEXT, aliases BLOB, redefined_ms INTEGER)"
        )
        connection.executemany("INSERT INTO births VALUES (?, ?, ?, ?, 0)", [(*key, table) for key in keys])
        connection.executemany("INSERT INTO sessions VALUES (?, ?, ?, ?, 7)", [(*keys[1], 3), (*keys[2], -1)])

    await state.write(write)
    for _ in range(2):  # it may run at every start
        await state.write(births_upgrade.upgrade)
    known = Births(state)
    found = [known.find(key) for key in keys]
    assert [each and each.session for each in found] == [0, 3, births.DEAD]
    assert all(each and each.aliases[1] == ("power_in", 9) for each in found)
    assert (known.node(*NODE).session, known.node(*NODE).bd_seq) == (3, 7)
    assert known.devices(*NODE) == [UNIT, "dead"]


async def test_a_refused_birth_leaves_the_one_before(state: StateFile) -> None:
    known = Births(state)
    good = known.learn((*NODE, UNIT), {1: ("power_in", 9)})
    known.saved(good)
    known.forget(known.learn((*NODE, UNIT), {1: ("speed", 9)}))
    assert known.find((*NODE, UNIT)) is good


async def test_after_a_crash_around_changed_aliases_redelivered_data_is_not_guessed(state: StateFile) -> None:
    before = Births(state)
    for meaning in ("power_in", "speed"):
        table = before.learn((*NODE, UNIT), {1: (meaning, 9)})
        await state.write(lambda connection, table=table: before.save(connection, [table]))  # type: ignore[misc]
        before.saved(table)
    decoder = Decoder(Births(state), 4096)
    assert reasons(message(decoder, "DDATA", data({1: 1.0}), dup=True)) == [Reason.NO_BIRTH]
    assert message(decoder, "DDATA", data({1: 1.0})).readings == [Reading(UNIT, T0, {"speed": 1.0})]
    message(decoder, "DBIRTH", birth({1: "speed"}), dup=True)
    assert not message(decoder, "DDATA", data({1: 1.0}), dup=True).refused


@given(st.integers(-500_000, 500_000))
def test_float32_on_the_wire_comes_back_as_the_decimal_that_was_meant(thousandths: int) -> None:
    signal = MOTOR.signal("power_in")
    meant = signal.round(thousandths * signal.resolution)
    sent = float(np.float32(meant))
    assert check(Reading(UNIT, T0, {"power_in": sent}), SIGNALS["motor"], T0) == {"power_in": meant}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, Reason.NOT_FINITE),
        (-math.inf, Reason.NOT_FINITE),
        (10**400, Reason.NOT_FINITE),
        (True, Reason.WRONG_TYPE),
        ("11", Reason.WRONG_TYPE),
    ],
)
def test_values_that_are_no_number_are_refused(value: Value, reason: Reason) -> None:
    with pytest.raises(BadReading) as refused:
        check(Reading(UNIT, T0, {"power_in": value}), SIGNALS["motor"], T0)
    assert refused.value.reason is reason


def test_whole_numbers_may_stand_for_floats() -> None:
    values = check(Reading(UNIT, T0, {"power_in": 11}), SIGNALS["motor"], T0)
    assert json.dumps(values) == '{"power_in": 11.0}'


def test_the_future_is_refused_and_the_past_is_not() -> None:
    assert check(Reading(UNIT, MIN_TIME_MS, {"speed": 1.0}), SIGNALS["motor"], T0)
    with pytest.raises(BadReading) as refused:
        check(Reading(UNIT, T0 + 1, {"speed": 1.0}), SIGNALS["motor"], T0)
    assert refused.value.reason is Reason.BAD_TIMESTAMP


_values = st.dictionaries(
    st.sampled_from(["power_in", "speed", "vibration", "energy_kWh", "colour"]),
    st.one_of(st.floats(), st.floats(-1e4, 1e4), st.integers(), st.booleans()),
    max_size=4,
)


@given(st.lists(st.tuples(st.integers(T0 - 3, T0 + 3), _values), max_size=30))
def test_many_are_checked_as_each_is_by_itself(made: list[tuple[int, dict[str, Value]]]) -> None:
    readings = [Reading(UNIT, ts_ms, values) for ts_ms, values in made]
    remarks: list[tuple[int, Remark, str]] = []
    checked = check_all("motor", readings, T0, lambda *said: remarks.append(said))
    for place, (reading, found) in enumerate(zip(readings, checked, strict=True)):
        alone: list[tuple[Remark, str]] = []
        try:
            wanted = check(reading, SIGNALS["motor"], T0, partial(_note, alone))
        except BadReading as bad:
            assert isinstance(found, BadReading)
            assert (found.reason, found.detail) == (bad.reason, bad.detail)
        else:
            assert repr(found) == repr(wanted)
            assert sorted(said[1:] for said in remarks if said[0] == place) == sorted(alone)


def _note(said: list[tuple[Remark, str]], kind: Remark, detail: str) -> None:
    said.append((kind, detail))


def test_what_senders_make_up_is_not_kept_in_caches(decoder: Decoder) -> None:
    kept = decoding._parse.cache_info().currsize, checking._limits.cache_info().currsize
    for number in range(20):
        long = f"{number}" + "x" * 60_000
        decoder.decode(f"spBv1.0/STATE/{long}", b"", dup=False)
        decoder.decode(topics.telemetry(*NODE, long), b"{}", dup=False)
        check_all("motor", [Reading(UNIT, T0, {"power_in": 1.0, long: 1.0})], T0)
    assert (decoding._parse.cache_info().currsize, checking._limits.cache_info().currsize) == kept
