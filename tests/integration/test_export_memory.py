"""Stored readings of thousands of units leave the platform as a stream: memory does not grow with them.

The short form counts the memory of Python and numpy while slices are small. The long form (QILU_SOAK=1) has
3,000,000 readings of 10,000 units, real slices, and the whole memory of the platform's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import tracemalloc
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from qilu_common.http_server import HttpServer
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.columns import Columns, Series
from qilu_platform.app import create_app
from qilu_platform.settings import Settings
from qilu_stores import open_store
from qilu_stores.duck import store as duck
from qilu_stores.influx import store as influx
from served_platform import served_platform

ADMIN = "the-admin-key-of-this-test"
SOAK = os.environ.get("QILU_SOAK") == "1"
START = 1_654_041_600_000
SIGNALS = tuple(signal.name for signal in CATALOGUE["motor"].signals)
MIB = 1024 * 1024
SLICE = 500
FORMATS = ["csv", "parquet"]


@pytest.fixture(params=["duckdb", "influxdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path}/readings.duckdb"
    return str(request.getfixturevalue("influxdb").url)


async def fill(url: str, units: int, samples: int) -> None:
    """Readings of motors with all their signals: powers are 0, 1, 2, …"""
    series = Series()
    head = series.head("motor", ("370200", "370202", "C34", "370202-e00001"))
    rows = series.add_many([f"m{n}" for n in range(units)], np.full(units, head, dtype=np.int32))
    noise = np.random.default_rng(1)
    async with open_store(url) as store:
        for at in range(samples):
            values = noise.normal(20.0, 5.0, (units, len(SIGNALS))).round(3)
            values[:, SIGNALS.index("power_in")] = np.arange(units) + at * units
            times = np.full(units, START + at * 10_000, dtype=np.int64)
            await store.write([], [Columns("motor", series, rows, times, SIGNALS, values)])


def save(address: str, file: Path, end_ms: int) -> None:
    query: dict[str, Any] = {"class": "motor", "from": START, "to": end_ms, "format": file.suffix[1:]}
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with httpx.stream(
        "GET", f"{address}/v1/export/readings", params=query, headers=headers, timeout=600, trust_env=False
    ) as answer:
        assert answer.status_code == 200, answer.read()
        with file.open("wb") as out:
            for part in answer.iter_bytes():
                out.write(part)


def check(file: Path, units: int, samples: int) -> None:
    """All readings are there, by every reader that is installed."""
    readings, power = units * samples, float(units * samples * (units * samples - 1) // 2)
    found = duckdb.sql(f"SELECT count(*), count(DISTINCT unit), sum(power_in) FROM '{file}'").fetchall()
    assert found == [(readings, units, power)]
    parquet = file.suffix == ".parquet"
    for library, needs in (("pandas", "pyarrow" if parquet else "pandas"), ("polars", "polars")):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(needs)
            reader = importlib.import_module(library)
            frame = reader.read_parquet(file) if parquet else reader.read_csv(file)
            assert (len(frame), float(frame["power_in"].sum())) == (readings, power), library
    if parquet:
        with contextlib.suppress(ModuleNotFoundError):
            table = importlib.import_module("pyarrow.parquet").read_table(file)
            assert table.num_rows == readings


@pytest.mark.parametrize("format_", FORMATS)
async def test_an_export_holds_few_slices_at_a_time(
    url: str, format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units, samples = 2_000, 20
    await fill(url, units, samples)
    for module, name in ((duck, "SCAN_ROWS"), (influx, "SCAN_ROWS"), (influx, "_CHUNK_ROWS")):
        monkeypatch.setattr(module, name, SLICE)
    async with open_store(url) as store:
        app = create_app(Settings(db_url=f"sqlite:///{tmp_path}/p.db", api_key=SecretStr(ADMIN)), store)
        async with app.router.lifespan_context(app), HttpServer(app, "127.0.0.1", 0, 10) as server:
            peaks = []
            for at in (
                1,
                1,
                samples,
            ):  # four slices, the first time with what has to be imported; then all forty
                file = tmp_path / f"export-{at}.{format_}"
                tracemalloc.start()
                try:
                    await asyncio.to_thread(save, server.url, file, START + at * 10_000)
                    peaks.append(tracemalloc.get_traced_memory()[1])
                finally:
                    tracemalloc.stop()
                check(file, units, at)
    print(f"{url[:6]} {format_}: {peaks[-1] / MIB:.1f} MiB")  # noqa: T201
    # All readings at once would be 4.6 MiB of numbers, and as much as CSV, besides what one slice takes.
    assert peaks[-1] < 5 * MIB


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 1024


@pytest.mark.skipif(not SOAK, reason="minutes: in `make soak`")
@pytest.mark.parametrize("format_", FORMATS)
async def test_the_platforms_memory_is_bounded_while_millions_of_readings_leave(
    url: str, format_: str, tmp_path: Path, free_port: Any
) -> None:
    units = int(os.environ.get("QILU_EXPORT_UNITS", "10000"))
    samples = 300
    await fill(url, units, samples)
    peaks = []
    options = ["--db", f"sqlite:///{tmp_path}/p.db", "--store", url]
    key = {"QILU_API_KEY": ADMIN}
    with served_platform(options, tmp_path, free_port(), key) as (address, pid):
        for at in (samples // 20, samples):
            file = tmp_path / f"export-{at}.{format_}"
            await asyncio.to_thread(save, address, file, START + at * 10_000)
            peaks.append(peak_mib(pid))
            size = file.stat().st_size / MIB
            print(f"{url[:6]} {format_}: {units * at:,} readings, {size:.0f} MiB, peak {peaks[-1]:.0f}")  # noqa: T201
            check(file, units, at)
    # DuckDB caches blocks of its file: up to its limit of 1 GiB.
    assert peaks[1] < peaks[0] + (1200 if url.startswith("duckdb") else 100)
