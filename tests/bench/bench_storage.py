"""Storing readings: the store compared with the simple method, on this machine, in one run. Prints; asserts
nothing about time."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
from influxdb_client import Point as ClientPoint
from influxdb_client import WritePrecision
from qilu_contract.storage import MEASUREMENTS, Point, line_protocol
from qilu_stores import open_store
from rich.console import Console
from rich.table import Table

UNITS, STEPS, BATCH = 1_000, 50, 5_000
PLAIN = 500
"""Rows for the simple method with DuckDB, which is slow."""
FIELDS = {
    "power_in": 11.234,
    "slip": 1.9,
    "speed": 1471.2,
    "current": 21.95,
    "voltage": 380.4,
    "winding_temp": 84.1,
}


def points() -> list[Point]:
    tags = [
        ("370200", "370202", "C34", f"370202-e{n // 33:05d}", f"370202-motor-{n:07d}") for n in range(UNITS)
    ]
    return [
        Point("motor", tags[n], 1_700_000_000_000 + step * 10_000, FIELDS)
        for step in range(STEPS)
        for n in range(UNITS)
    ]


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, CPython {platform.python_version()}"


def rate(work: Callable[[], None], count: int) -> float:
    """Items a CPU second: the machine may be busy with other things."""
    began = time.process_time()
    work()
    return count / (time.process_time() - began)


def show(title: str, plain: tuple[str, float], ours: tuple[str, float]) -> None:
    table = Table(title=f"{title}\n{machine()}", title_justify="left")
    for heading in ("way", "points per CPU second", "ratio"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, figure in (plain, ours):
        table.add_row(name, f"{figure:,.0f}", f"{figure / plain[1]:.1f}")
    Console().print(table)


def bench_line_protocol() -> None:
    made = points()
    names = MEASUREMENTS["motor"].tags

    def plain() -> None:
        for _, tags, ts_ms, fields in made[:BATCH]:
            point = ClientPoint("motor").time(ts_ms, WritePrecision.MS)
            for name, value in zip(names, tags, strict=True):
                point.tag(name, value)
            for name, value in fields.items():
                point.field(name, value)
            point.to_line_protocol()

    def ours() -> None:
        for start in range(0, len(made), BATCH):
            line_protocol(made[start : start + BATCH])

    show(
        "Building line protocol, 6 fields",
        ("influxdb_client.Point", rate(plain, BATCH)),
        ("cached tags, f-strings", rate(ours, len(made))),
    )


async def bench_duckdb(tmp_path: Path) -> None:
    made = points()
    with duckdb.connect(tmp_path / "plain.duckdb") as connection:
        columns = ", ".join(f'"{name}" DOUBLE' for name in FIELDS)
        connection.execute(f"CREATE TABLE motor (ts BIGINT, unit VARCHAR, {columns}, PRIMARY KEY (unit, ts))")
        rows = [[ts_ms, tags[-1], *fields.values()] for _, tags, ts_ms, fields in made[:PLAIN]]
        marks = ", ".join("?" * (2 + len(FIELDS)))
        plain = rate(
            lambda: connection.executemany(f"INSERT OR REPLACE INTO motor VALUES ({marks})", rows), BATCH
        )
    async with open_store(f"duckdb:///{tmp_path}/ours.duckdb") as store:
        began = time.process_time()
        for start in range(0, len(made), BATCH):
            await store.write(made[start : start + BATCH])
        ours = len(made) / (time.process_time() - began)
        assert await store.count("motor") == UNITS * STEPS
    show(
        "Storing in DuckDB, idempotent, batches of 5,000",
        ("executemany, primary key", plain),
        ("numpy, MERGE", ours),
    )
