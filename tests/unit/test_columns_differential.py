"""Many messages at once come to what each comes to by itself: value by value, refusal by refusal, remark by
remark. Random payloads of all classes and of users' own, good, odd and hostile, in mixed batches; 20,000 with
all tests, 1,000,000 and more with QILU_SOAK=1.
"""

from __future__ import annotations

import os
import random
from typing import Any

import column_fuzz
import column_oracle
import numpy as np
import pytest
from column_fuzz import T0, Device
from column_oracle import Outcome, sorted_readings
from empty_state import EmptyState
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import EquipmentClass
from qilu_contract.wire import json_columns, sparkplug, topics
from qilu_contract.wire.sparkplug import DataType
from qilu_contract.wire.sparkplug_columns import NO_SEQ, SparkplugColumns, integers
from qilu_gateway.read import checking
from qilu_gateway.read.births import Births, BirthTable
from qilu_gateway.read.decoding import Decoder

PAYLOADS = 700_000 if os.environ.get("QILU_SOAK") == "1" else 10_000
"""Of JSON, and as many of Sparkplug."""
SEED = 20261127
LATEST_MS = T0 + 600_000
RECEIPT_MS = T0 + 1
Found = dict[int, list[tuple[int, dict[str, Any]]]]
"""Readings by the place of their message."""


@pytest.fixture
def classes(monkeypatch: pytest.MonkeyPatch) -> list[EquipmentClass]:
    own = column_fuzz.own_classes()
    for class_ in own:
        monkeypatch.setitem(CATALOGUE, class_.name, class_)
        monkeypatch.setitem(checking.SIGNALS, class_.name, {each.name: each for each in class_.signals})  # type: ignore[arg-type]
    return [*CATALOGUE.values()]


def check(
    class_name: str,
    names: tuple[str, ...],
    group: json_columns.Group | Any,
    values: Any,
    found: Found,
    odd: set[int],
    bools: tuple[bool, ...] | None = None,
) -> None:
    """Put the group's readings into `found`, and into `odd` the places of messages with one that is not good,
    or not usual."""
    checked = checking.check_columns(class_name, names, group.ts_ms, values, LATEST_MS, bools)
    odd |= set(group.of[~(checked.good & checked.usual)].tolist())
    types = [
        checking.SIGNALS[class_name][name].type if name in checking.SIGNALS[class_name] else ""
        for name in names
    ]
    makers = [{"float": float, "int": int, "bool": bool, "": str}[type_] for type_ in types]
    for row, (of, ts_ms) in enumerate(zip(group.of.tolist(), group.ts_ms.tolist(), strict=True)):
        if of not in odd:
            fields = zip(names, makers, checked.values[row].tolist(), strict=True)
            reading = {name: make(value) for name, make, value in fields if value == value}
            found.setdefault(of, []).append((ts_ms, reading))


def compare(body: bytes, readings: list[tuple[int, dict[str, Any]]], plain: Outcome) -> None:
    assert plain.is_plain, (body, plain)
    assert sorted_readings(readings) == sorted_readings(plain.readings), body


def test_json_by_column_is_what_it_is_one_by_one(classes: list[EquipmentClass]) -> None:
    chance = random.Random(SEED)
    count = plain_ones = by_column = 0
    while count < PAYLOADS:
        class_ = chance.choice(classes)
        size = chance.choice([0, 1, 2, 5, 40, 200])
        bodies = [column_fuzz.json_body(chance, class_, T0 + 1000 * n) for n in range(size)]
        broken = chance.choice([0.0, 0.02, 0.5])
        bodies = [column_fuzz.mutated(chance, each) if chance.random() < broken else each for each in bodies]
        decoded = json_columns.decode(class_.name, bodies)
        found: Found = {}
        odd: set[int] = set()
        for group in decoded.groups:
            check(class_.name, group.names, group, group.values, found, odd)
        assert sorted({*found, *odd, *decoded.rest}) == list(range(size))
        assert not {*found, *odd} & {*decoded.rest}
        assert decoded.rest == sorted(decoded.rest)
        for place, body in enumerate(bodies):
            plain = column_oracle.of_json(class_.name, body, RECEIPT_MS, LATEST_MS)
            plain_ones += plain.is_plain
            if place in found and place not in odd:
                by_column += 1
                compare(body, found[place], plain)
        count += size
    assert by_column > 0.95 * plain_ones > 0.7 * 0.95 * count


def by_names(
    table: BirthTable, group: Any, rows: Any
) -> tuple[tuple[str, ...], Any, Any, tuple[bool, ...]] | None:
    """Names of a group's columns for a device, their values, which are understood, and which came as bool;
    None if an alias is not plain."""
    aliases = [int(group.first[rows][0]) + step for step in group.metrics.steps]
    if not all(alias in table.names for alias in aliases):
        return None
    names = tuple([table.names[alias] for alias in aliases])
    if len(set(names)) < len(names):
        return None
    values = group.values[rows].copy()
    good = np.ones(len(values), dtype=bool)
    for column, type_ in enumerate(group.metrics.types):
        if type_ not in (DataType.FLOAT, DataType.DOUBLE, DataType.BOOLEAN):
            meant = type_ or table.types[names[column]]
            values[:, column], understood = integers(values[:, column], meant)
            good &= understood
    return names, values, good, tuple([type_ == DataType.BOOLEAN for type_ in group.metrics.types])


def test_sparkplug_by_column_is_what_it_is_one_by_one(classes: list[EquipmentClass]) -> None:
    chance = random.Random(SEED)
    columns = SparkplugColumns()
    decoder = Decoder(Births(EmptyState()), 1 << 20)  # type: ignore[arg-type]
    devices: list[Device] = []
    tables: list[BirthTable] = []
    for n in range(60):
        device = Device(chance, classes[n % len(classes)], f"d{n}")
        topic = topics.sparkplug("DBIRTH", "370202", "works", device.name)
        birth = decoder.decode(topic, device.birth(T0), dup=False).birth
        assert birth is not None
        devices.append(device)
        tables.append(birth)
    count = plain_ones = by_column = 0
    while count < PAYLOADS:
        some = chance.sample(range(len(devices)), chance.choice([1, 2, 15]))
        size = chance.choice([0, 1, 2, 5, 40, 300])
        owners = [chance.choice(some) for _ in range(size)]
        bodies = [devices[owner].data(chance, T0 + 1000 * n) for n, owner in enumerate(owners)]
        broken = chance.choice([0.0, 0.02, 0.5])
        bodies = [column_fuzz.mutated(chance, each) if chance.random() < broken else each for each in bodies]
        decoded = columns.decode(bodies)
        found: Found = {}
        odd: set[int] = set()
        of_device = np.array(owners, dtype=np.int64)
        for group in decoded.groups:
            assert (np.diff(group.of) >= 0).all()
            assert np.isfinite(group.values).all()
            # The birth of each row gives the names: here device by device and first alias by first alias.
            keys = list(zip(of_device[group.of].tolist(), group.first.tolist(), strict=True))
            for key in set(keys):
                rows = np.array([each == key for each in keys])
                part = group._replace(of=group.of[rows], ts_ms=group.ts_ms[rows])
                named = by_names(tables[key[0]], group, rows)
                if named is None:
                    odd |= set(part.of.tolist())
                    continue
                names, values, good, bools = named
                odd |= set(part.of[~good].tolist())
                check(devices[key[0]].class_.name, names, part, values, found, odd, bools)
        assert sorted({*found, *odd, *decoded.rest}) == list(range(size))
        assert not {*found, *odd} & {*decoded.rest}
        for place, (owner, body) in enumerate(zip(owners, bodies, strict=True)):
            topic = topics.sparkplug("DDATA", "370202", "works", devices[owner].name)
            # Readings of the past are always decoded metric by metric.
            one = decoder.decode(topic, body, dup=False, past_ms=LATEST_MS)
            plain = column_oracle.of_decoded(devices[owner].class_.name, one, LATEST_MS)
            plain_ones += plain.is_plain
            if place in found and place not in odd:
                by_column += 1
                compare(body, found[place], plain)
                seq = sparkplug.decode(body).seq
                assert decoded.seq[place] == (NO_SEQ if seq is None else seq)
        count += size
    assert by_column > 0.6 * plain_ones > 0.5 * 0.6 * count
