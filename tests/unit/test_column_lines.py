"""Line protocol from columns says what the lines of the same points say, one by one."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract import storage
from qilu_contract.columns import Columns, Series
from qilu_contract.storage import MEASUREMENTS, UNIT_TAGS, Measurement, line_protocol
from qilu_stores.influx.column_lines import CHUNK, FEW, column_lines

CLASSES = [name for name, schema in MEASUREMENTS.items() if schema.tags == UNIT_TAGS]
ODD = [
    0.0,
    -0.0,
    1e16,
    1e22,
    1e-7,
    5e-324,
    2.2250738585072014e-308,
    1.797e308,
    -1.5,
    0.1 + 0.2,
    123456789012.5,
]


@pytest.fixture(autouse=True)
def valve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class with fields of every type."""
    fields: dict[str, Any] = {
        "flow": "float",
        "open": "bool",
        "turns": "int",
        "head": "float",
        "auto": "bool",
    }
    monkeypatch.setitem(MEASUREMENTS, "valve", Measurement("valve", UNIT_TAGS, fields, "flow"))
    monkeypatch.setitem(storage._NAMES, "valve", fields.keys())
    monkeypatch.setitem(storage._INTS, "valve", frozenset({"turns"}))


def said(lines: bytes) -> Counter[tuple[Any, ...]]:
    """Points in line protocol, each value with its type and sign."""
    found: list[tuple[Any, ...]] = []
    for line in lines.decode().split("\n"):
        beginning, _, rest = line.rpartition(" ")[0].rpartition(" ")
        values = []
        for each in rest.split(","):
            name, _, text = each.partition("=")
            value: object = text if text in ("true", "false") else float(text.removesuffix("i")).hex()
            values.append((name, value, text[-1] == "i"))
        found.append((beginning, *sorted(values), line.rpartition(" ")[2]))
    return Counter(found)


def columns_of(name: str, draw: random.Random, points: int, gaps: float = 0.0) -> Columns:
    """Random values of some fields of a class; each point keeps one at least."""
    series = Series()
    for number in range(20):
        series.add(name, ("370200", "370202", "C 34", "a=b,c", f"unit-{number}\\x"))
    schema = MEASUREMENTS[name].fields
    names = tuple(draw.sample(list(schema), draw.randint(1, len(schema))))
    values = np.empty((points, len(names)))
    for place, field in enumerate(names):
        for at in range(points):
            match schema[field]:
                case "bool":
                    values[at, place] = draw.random() < 0.5
                case "int":
                    values[at, place] = draw.choice([0, 1, -1, 2**53, -(2**53), draw.randrange(10**12)])
                case _:
                    bits = draw.uniform(-1, 1) * 10.0 ** draw.randint(-300, 300)
                    values[at, place] = draw.choice([draw.choice(ODD), bits, round(draw.uniform(0, 999), 2)])
    missing = np.array([[draw.random() < gaps for _ in names] for _ in range(points)])
    missing[np.arange(points), [draw.randrange(len(names)) for _ in range(points)]] = False
    values[missing] = np.nan
    rows = np.array([draw.randrange(len(series)) for _ in range(points)], dtype=np.int32)
    ts_ms = np.array([draw.randrange(10**12, 10**13) for _ in range(points)], dtype=np.int64)
    return Columns(name, series, rows, ts_ms, names, values)


@given(seed=st.integers(0, 2**32), points=st.integers(1, 60), gaps=st.sampled_from([0.0, 0.05, 0.5, 0.95]))
def test_lines_from_columns_say_the_same(seed: int, points: int, gaps: float) -> None:
    draw = random.Random(seed)
    columns = columns_of(draw.choice([*CLASSES, "valve"]), draw, points, gaps)
    assert said(column_lines(columns)) == said(line_protocol(columns.points()))


@pytest.mark.parametrize("name", [*CLASSES, "valve"])
def test_every_class_is_written(name: str) -> None:
    columns = columns_of(name, random.Random(name), 2 * CHUNK + 3, 0.3 / len(MEASUREMENTS[name].fields))
    assert said(column_lines(columns)) == said(line_protocol(columns.points()))


def test_points_without_gaps_are_written_in_their_order_and_their_very_text() -> None:
    columns = columns_of("motor", random.Random(1), 3 * FEW)
    columns = columns.take(np.argsort(columns.rows))
    rounded = Columns(
        "motor",
        columns.series,
        columns.rows,
        columns.ts_ms,
        ("power_in",),
        np.round(columns.rows / 7, 2)[:, None],
    )
    assert column_lines(rounded) == line_protocol(rounded.points())


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    columns = columns_of("motor", random.Random(2), 5, 0.5)
    columns.values[3, 0] = value
    with pytest.raises(ValueError, match="finite"):
        column_lines(columns)


def test_what_is_not_in_the_schema_is_refused() -> None:
    motor = columns_of("motor", random.Random(3), 2)
    names = ("warp_factor", *motor.names[1:])
    with pytest.raises(KeyError):
        column_lines(Columns("motor", motor.series, motor.rows, motor.ts_ms, names, motor.values))
    with pytest.raises(KeyError):
        column_lines(Columns("nothing", motor.series, motor.rows, motor.ts_ms, motor.names, motor.values))
    with pytest.raises(ValueError, match="no field"):
        column_lines(Columns("motor", motor.series, motor.rows, motor.ts_ms, (), motor.values[:, :0]))
    motor.values[:] = np.nan
    with pytest.raises(ValueError, match="no field"):
        column_lines(motor.take(np.zeros(FEW, dtype=np.int64)))


def test_a_tag_that_no_line_can_hold_is_refused() -> None:
    series = Series()
    series.add("motor", ("370200", "370202", "C34", "e", "line\nbreak"))
    rows, ts_ms = np.zeros(1, dtype=np.int32), np.ones(1, dtype=np.int64)
    with pytest.raises(ValueError, match="control characters"):
        column_lines(Columns("motor", series, rows, ts_ms, ("power_in",), np.ones((1, 1))))
