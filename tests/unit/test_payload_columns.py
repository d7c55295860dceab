"""Payloads by column: which messages are decoded together, which take the plain path, and the result."""

from __future__ import annotations

import random

import numpy as np
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.wire import json_columns, sparkplug, sparkplug_columns
from qilu_contract.wire.json_columns import MAX_LAYOUTS
from qilu_contract.wire.sparkplug import DataType, Metric, Payload, integer
from qilu_contract.wire.sparkplug_columns import SparkplugColumns, integers
from qilu_gateway.read.checking import check_columns

T0 = 1_795_749_000_000
MOTOR = [signal.name for signal in CATALOGUE["motor"].signals]


def reading(ts_ms: int, speed: float = 1470.0) -> bytes:
    return b'{"ts":%d,"speed":%r,"power_in":5}' % (ts_ms, speed)


def test_readings_of_many_messages_are_rows() -> None:
    found = json_columns.decode("motor", [reading(T0), b"[%s,%s]" % (reading(T0 + 1), reading(T0 + 2, 3.5))])
    assert found.rest == []
    [group] = found.groups
    assert group.names == ("power_in", "speed")  # in the order of the class
    assert group.of.tolist() == [0, 1, 1]
    assert group.ts_ms.tolist() == [T0, T0 + 1, T0 + 2]
    assert group.values.tolist() == [[5.0, 1470.0], [5.0, 1470.0], [5.0, 3.5]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"[%s" % reading(T0),
        b"%s,%s" % (reading(T0), reading(T0)),
        b'{"ts":%d}' % T0,
        b'{"speed":1}',
        b'{"ts":%d,"speed":null}' % T0,
        b'{"ts":%d,"speed":"1"}' % T0,
        b'{"ts":%d,"speed":true}' % T0,
        b'{"ts":%d,"speed":NaN}' % T0,
        b'{"ts":%d,"speed":1e999}' % T0,
        b'{"ts":%d,"speed":1,"speed":1}' % T0,
        b'{"ts":%d,"speed":1,"spee\\u0064":2}' % T0,
        b'{"ts":%d,"speed":1,"colour":2}' % T0,
        b'{"ts":%d,"values":{"speed":1}}' % T0,
        b'{"ts":"2026-11-27T08:00:00Z","speed":1}',
        b'{"ts":9007199254740993,"speed":1}',
        b'[%s,{"ts":1}]' % reading(T0),
        b'[%s,{"ts":1,"speed":1,"speed":2}]' % reading(T0),
        b"[[%s]]" % reading(T0),
        b"\xef\xbb\xbf" + reading(T0),
        b'{"ts":1,"sp\xffed":1}',
    ],
)
def test_what_is_not_plain_is_left_out_as_a_whole(body: bytes) -> None:
    found = json_columns.decode("motor", [reading(T0), body, reading(T0)])
    assert found.rest == [1]
    assert [group.of.tolist() for group in found.groups] == [[0, 2]]


def test_messages_of_a_class_that_is_not_there_are_all_left_out() -> None:
    assert json_columns.decode("no such class", [reading(T0)] * 2) == ([], [0, 1])


def test_readings_with_the_same_signals_are_a_group_unless_there_are_too_many() -> None:
    def some(count: int) -> bytes:
        return b'{"ts":%d,' % T0 + b",".join(b'"%s":1' % name.encode() for name in MOTOR[:count]) + b"}"

    few = json_columns.decode("motor", [some(n % MAX_LAYOUTS + 1) for n in range(100)])
    assert sorted(len(group.names) for group in few.groups) == list(range(1, MAX_LAYOUTS + 1))
    assert not any(np.isnan(group.values).any() for group in few.groups)
    [group] = json_columns.decode("motor", [some(n % (MAX_LAYOUTS + 1) + 1) for n in range(100)]).groups
    assert group.names == tuple(MOTOR[: MAX_LAYOUTS + 1])
    assert (~np.isnan(group.values)).sum(axis=1).tolist() == [n % (MAX_LAYOUTS + 1) + 1 for n in range(100)]


def message(
    counts: list[int], seq: int | None = 1, first: int = 0, ts_ms: int = T0, step_ms: int = 1000
) -> bytes:
    """A reading for each count, of so many metrics."""
    metrics = [
        Metric(alias=first + alias, ts_ms=ts_ms + step_ms * n, value=n + alias / 2)
        for n, count in enumerate(counts)
        for alias in range(count)
    ]
    return sparkplug.encode(Payload(ts_ms, seq, metrics), datatypes=False)


def test_many_readings_of_many_messages_are_rows_by_time() -> None:
    """Of every third, other signals are sampled, too; units have other aliases, and sequence numbers of one
    byte or two."""
    counts = [3, 2, 2, 3, 2]
    bodies = [message(counts, seq, first, T0 + 10_000 * seq) for seq in (1, 200) for first in (0, 32, 500)]
    found = SparkplugColumns().decode(bodies)
    assert found.rest == []
    assert found.seq.tolist() == [1, 1, 1, 200, 200, 200]
    groups = {group.metrics.steps: group for group in found.groups}
    assert groups.keys() == {(0, 1), (0, 1, 2)}
    long, short = groups[0, 1, 2], groups[0, 1]
    assert long.of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert long.first.tolist() == [0, 0, 32, 32, 500, 500] * 2
    assert long.ts_ms[:2].tolist() == [T0 + 10_000, T0 + 13_000]
    assert long.values[-2:].tolist() == [[0, 0.5, 1], [3, 3.5, 4]]
    assert short.of.tolist() == [n // 3 for n in range(18)]
    assert short.values[:3].tolist() == [[1, 1.5], [2, 2.5], [4, 4.5]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x08",
        message([2], seq=256),
        message([2, 2], step_ms=0),  # two values of an alias at one time
        message([2, 1, 2], first=2**30),
        message([2]) + b"\x18",
        message([2])[:-4],
        sparkplug.encode(Payload(T0, 1, [])),
        sparkplug.encode(Payload(T0, 1, [Metric(alias=0, value=float("nan"))])),
        sparkplug.encode(Payload(T0, 1, [Metric(alias=0, value=None)])),
        sparkplug.encode(Payload(T0, 1, [Metric("speed", alias=0, value=1.0)])),
        sparkplug.encode(Payload(T0, 1, [Metric(alias=0, value=1.0, properties={"Quality": 0})])),
        sparkplug.encode(Payload(T0, 1, [Metric(alias=0, value=1.0, is_transient=True)])),
        sparkplug.encode(Payload(T0, 1, [Metric(alias=0, datatype=DataType.INT32, value=-1)])),
        sparkplug.encode(Payload(None, 1, [Metric(alias=0, ts_ms=T0, value=1.0)])),
        sparkplug.encode(Payload(1, 1, [Metric(alias=0, value=1.0)])),
        # The first time comes again, after another.
        sparkplug.encode(
            Payload(T0, 1, [Metric(alias=n, ts_ms=T0 + n % 2, value=1.0) for n in range(3)]), datatypes=False
        ),
    ],
)
def test_sparkplug_that_is_not_plain_is_left_out(body: bytes) -> None:
    columns = SparkplugColumns()
    for _ in range(2):  # with layouts learned, too
        found = columns.decode([message([2]), body, message([2])])
        assert found.rest == [1]
        assert [group.of.tolist() for group in found.groups] == [[0, 2]]


def test_layouts_are_bounded_and_few_are_learned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug_columns, "MAX_METRICS", 400)
    columns = SparkplugColumns()
    chance = random.Random(1)

    def odd() -> bytes:
        kinds = chance.choices((DataType.FLOAT, DataType.DOUBLE), k=chance.randint(20, 40))
        metrics = [Metric(alias=n, datatype=kind, value=1.0) for n, kind in enumerate(kinds)]
        return sparkplug.encode(Payload(T0, 1, metrics))

    bodies = [message([3])] * 10 + [odd() for _ in range(300)]
    for _ in range(3):
        rest = set(columns.decode(bodies).rest)
        assert len(rest) > 200
        assert not rest & set(range(10))
        assert sum(len(layout.types) for layout in columns._layouts) == columns._metrics <= 400
        alike = [layout for layouts in columns._by_length.values() for layout in layouts]
        assert set(alike) == set(columns._layouts)


@pytest.mark.parametrize("datatype", range(20))
def test_whole_numbers_mean_what_they_mean_one_by_one(datatype: int) -> None:
    sent = [0, 1, 5, *(2**bits + step for bits in (7, 8, 15, 16, 31, 32, 41) for step in (-2, -1, 0, 1))]
    values, good = integers(np.array(sent, dtype=np.float64), datatype)
    for value, found, is_good in zip(sent, values.tolist(), good.tolist(), strict=True):
        meant = integer(value, datatype)
        assert is_good == isinstance(meant, int), value
        assert not is_good or found == meant


def test_what_is_not_of_its_signals_type_or_in_its_bounds_is_not_good() -> None:
    values = np.array(
        [[1470.0, 5.0], [np.nan, 5.0], [np.inf, 5.0], [1e300, 5.0], [-1.0, 5.0], [1470.04, -0.0]]
    )
    times = np.full(6, T0)
    checked = check_columns("motor", ("speed", "power_in"), times, values, T0)
    assert checked.good.tolist() == [True, True, False, False, True, True]
    assert checked.usual[[0, 1, 4, 5]].tolist() == [True, True, False, True]
    assert checked.values[5].tolist() == [1470.0, 0.0]
    assert not np.signbit(checked.values[5, 1])
    assert np.isnan(checked.values[1, 0])
    assert not check_columns("motor", ("speed", "power_in"), times + 1, values, T0).good.any()
    assert not check_columns("motor", ("speed", "power_in"), times * 0, values, T0).good.any()
    assert not check_columns("motor", ("speed", "colour"), times, values, T0).good.any()
    assert not check_columns("nothing", ("speed", "power_in"), times, values, T0).good.any()
    assert not check_columns("motor", ("speed", "power_in"), times, values, T0, (True, False)).good.any()
