"""Births by column say what they say one at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.wire import sparkplug
from qilu_contract.wire.sparkplug import UNIT, DataType, Metric, Payload
from qilu_contract.wire.sparkplug_births import SparkplugBirths
from qilu_contract.wire.sparkplug_columns import NO_SEQ
from qilu_devices.edge import payloads

T0 = 1_700_000_000_000
Reading = tuple[int, dict[int, float]]


def by_column(bodies: Sequence[bytes]) -> list[Any]:
    """Of each birth: time, sequence number, aliases and readings; None for what is not plain."""
    decoded, tables = SparkplugBirths().decode(bodies)
    readings: list[list[Reading]] = [[] for _ in bodies]
    for group in decoded.groups:
        for of, ts_ms, first, values in zip(
            group.of.tolist(), group.ts_ms.tolist(), group.first.tolist(), group.values.tolist(), strict=True
        ):
            aliases = [first + step for step in group.metrics.steps]
            readings[of].append((ts_ms, dict(zip(aliases, values, strict=True))))
    found: list[Any] = [None] * len(bodies)
    for table in tables:
        for of, first, said_ms in zip(
            table.of.tolist(), table.first.tolist(), table.said_ms.tolist(), strict=True
        ):
            assert found[of] is None
            aliases = [first + step for step in table.steps]
            names = dict(zip(aliases, zip(table.said.names, table.said.datatypes, strict=True), strict=True))
            found[of] = said_ms, int(decoded.seq[of]), names, sorted(readings[of]), dict(table.said.units)
    assert [place for place, each in enumerate(found) if each is None] == decoded.rest
    assert not any(readings[place] for place in decoded.rest)
    return found


def one_by_one(body: bytes) -> Any:
    payload = sparkplug.decode(body)
    readings: dict[int, dict[int, float]] = {}
    for metric in payload.metrics:
        ts_ms = payload.ts_ms if metric.ts_ms is None else metric.ts_ms
        readings.setdefault(ts_ms or 0, {})[metric.alias or 0] = float(metric.value)  # type: ignore[arg-type]
    names = {metric.alias: (metric.name, metric.datatype) for metric in payload.metrics}
    units = {metric.name: metric.properties[UNIT] for metric in payload.metrics if UNIT in metric.properties}
    seq = NO_SEQ if payload.seq is None else payload.seq
    return payload.ts_ms, seq, names, sorted(readings.items()), units


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(CATALOGUE)),
            st.integers(0, 5000),
            st.lists(st.integers(0, 2), min_size=1, max_size=4),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_births_of_our_equipment_are_read_by_column(
    births: list[tuple[str, int, list[int], int]],
) -> None:
    bodies = []
    for name, alias, ages, seq in births:
        signals = CATALOGUE[name].signals
        last = [
            (T0 - 10_000 * ages[place % len(ages)], signal.nominal) for place, signal in enumerate(signals)
        ]
        bodies.append(payloads.device_birth(CATALOGUE[name], alias, last, seq))
    found = by_column(bodies)
    for body, each in zip(bodies, found, strict=True):
        assert each is None or each == one_by_one(body)


def test_a_class_of_equipment_is_read_by_column_whatever_its_aliases() -> None:
    motor = CATALOGUE["motor"]
    last = [(T0, signal.nominal) for signal in motor.signals]
    bodies = [payloads.device_birth(motor, alias, last, 1) for alias in (0, 20, 120, 127, 20_000)]
    assert by_column(bodies) == [one_by_one(body) for body in bodies]


ODD = {
    "a name that is no alias": Metric(name="speed", ts_ms=T0, datatype=DataType.FLOAT, value=1.0),
    "an alias that is no name": Metric(alias=2, ts_ms=T0, datatype=DataType.FLOAT, value=1.0),
    "no datatype": Metric(name="speed", alias=2, ts_ms=T0, value=1.0),
    "null": Metric(name="speed", alias=2, ts_ms=T0, datatype=DataType.FLOAT),
    "text": Metric(name="speed", alias=2, ts_ms=T0, datatype=DataType.STRING, value="fast"),
    "not finite": Metric(name="speed", alias=2, ts_ms=T0, datatype=DataType.FLOAT, value=float("nan")),
    "transient": Metric("speed", 2, T0, DataType.FLOAT, 1.0, is_transient=True),
    "not trusted": Metric("speed", 2, T0, DataType.FLOAT, 1.0, {"Quality": 500}),
    "a name twice": Metric("power_in", 2, T0, DataType.FLOAT, 1.0),
    "an alias twice": Metric("speed", 1, T0, DataType.FLOAT, 1.0),
}


@pytest.mark.parametrize("metric", ODD.values(), ids=ODD.keys())
def test_what_is_odd_in_a_birth_is_left_to_the_plain_way(metric: Metric) -> None:
    metrics = [Metric("power_in", 1, T0, DataType.FLOAT, 11.0), metric]
    plain = sparkplug.encode(Payload(T0, 3, [*metrics[:1], Metric("speed", 2, T0, DataType.FLOAT, 1.0)]))
    found = by_column([plain, sparkplug.encode(Payload(T0, 3, metrics)), plain])
    assert found == [one_by_one(plain), None, one_by_one(plain)]
