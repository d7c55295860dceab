"""Payloads to checked columns, many at once, and beside it one by one: CPU time, on this machine, in one run.
Prints; asserts nothing about time."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np
from bench_simulation import machine
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.readings import Reading
from qilu_contract.wire import json_columns, json_payload, sparkplug
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_contract.wire.sparkplug_columns import SparkplugColumns
from qilu_gateway.read import checking
from rich.console import Console
from rich.table import Table

T0 = 1_700_000_000_000
LATEST_MS = 2 * T0
SIGNALS = 10
CLASSES = 25
ROUNDS = 9
Batch = dict[str, list[bytes]]
"""Payloads by class."""


def made(class_name: str, messages: int, readings: int, *, as_json: bool) -> list[bytes]:
    """Of twenty units, as our devices send them."""
    chance, signals = random.Random(1), CATALOGUE[class_name].signals[:SIGNALS]
    found = []
    for n in range(messages):
        rows = [
            (T0 + n * readings + r, [each.round(chance.uniform(each.low, each.high)) for each in signals])
            for r in range(readings)
        ]
        if as_json:
            named = [(ts, {s.name: v for s, v in zip(signals, row, strict=True)}) for ts, row in rows]
            found.append(json_payload.encode(named))
            continue
        types = [DataType.DOUBLE if signal.is_wide else DataType.UNKNOWN for signal in signals]
        metrics = [
            Metric(None, n % 20 * 32 + place, ts, types[place], value)
            for ts, row in rows
            for place, value in enumerate(row)
        ]
        found.append(sparkplug.encode(Payload(rows[0][0], n % 256, metrics), datatypes=False))
    return found


def json_by_column(batch: Batch) -> None:
    for class_name, bodies in batch.items():
        for group in json_columns.decode(class_name, bodies).groups:
            checking.check_columns(class_name, group.names, group.ts_ms, group.values, LATEST_MS)


def json_one_by_one(batch: Batch) -> None:
    for class_name, bodies in batch.items():
        readings = [each for body in bodies for each in json_payload.decode("u", body)]
        checking.check_all(class_name, [each for each in readings if isinstance(each, Reading)], LATEST_MS)


def sparkplug_by_column(columns: SparkplugColumns, batch: Batch) -> None:
    """All classes in one call, as they come."""
    classes = np.repeat(np.arange(len(batch)), [len(bodies) for bodies in batch.values()])
    for group in columns.decode([body for bodies in batch.values() for body in bodies]).groups:
        mine = classes[group.of]
        for number, class_name in enumerate(batch):
            rows = mine == number
            if rows.any():
                names = [signal.name for signal in CATALOGUE[class_name].signals]
                named = tuple([names[step] for step in group.metrics.steps])
                some = slice(None) if rows.all() else rows
                checking.check_columns(class_name, named, group.ts_ms[some], group.values[some], LATEST_MS)


def sparkplug_one_by_one(batch: Batch) -> None:
    for class_name, bodies in batch.items():
        names = [signal.name for signal in CATALOGUE[class_name].signals]
        readings = []
        for body in bodies:
            by_time: dict[int, dict[str, float]] = {}
            for metric in sparkplug.decode(body).metrics:
                by_time.setdefault(metric.ts_ms or 0, {})[names[(metric.alias or 0) % 32]] = metric.value  # type: ignore[assignment]
            readings += [Reading("u", ts_ms, dict(values)) for ts_ms, values in by_time.items()]
        checking.check_all(class_name, readings, LATEST_MS)


def cpu_us(work: Callable[[], None], count: int, times: int) -> float:
    begin_s = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begin_s) / times / count * 1e6


def bench_payload_columns() -> None:
    for n in range(CLASSES - len(CATALOGUE)):
        of = list(CATALOGUE.values())[n]
        CATALOGUE[f"class_{n}"] = replace(of, name=f"class_{n}")
        checking.SIGNALS[f"class_{n}"] = checking.SIGNALS[of.name]  # type: ignore[index]
    shapes = {"one reading": (["motor"], 2000, 1), "fifty readings": (["motor"], 60, 50)}
    shapes[f"one reading, {CLASSES} classes x 40"] = (list(CATALOGUE), 40, 1)
    heading = f"Payloads to checked columns, {SIGNALS} signals\n{machine()}, load {os.getloadavg()[0]:.1f}"
    table = Table(
        "µs of CPU per reading, median", "columns", "one by one", title=heading, title_justify="left"
    )
    for shape, (classes, messages, readings) in shapes.items():
        for as_json in (True, False):
            batch = {name: made(name, messages, readings, as_json=as_json) for name in classes}
            count = len(classes) * messages * readings
            columns = SparkplugColumns()
            pairs = []
            for _ in range(ROUNDS):
                if as_json:
                    pair = lambda: json_by_column(batch), lambda: json_one_by_one(batch)  # noqa: B023
                else:
                    pair = lambda: sparkplug_by_column(columns, batch), lambda: sparkplug_one_by_one(batch)  # noqa: B023
                pairs.append((cpu_us(pair[0], count, 5), cpu_us(pair[1], count, 1)))
            fast, plain = (median(each) for each in zip(*pairs[1:], strict=True))
            table.add_row(f"{'JSON' if as_json else 'Sparkplug'}, {shape}", f"{fast:.2f}", f"{plain:.2f}")
    Console(width=110).print(table)
