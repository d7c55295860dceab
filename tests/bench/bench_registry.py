"""The registry at the programme's size: import, other requests meanwhile, onboarding, reads. Prints; asserts
nothing about time.

`QILU_BENCH_UNITS` sets the size (10,000,000 else), `QILU_BENCH_DB` restricts to sqlite or postgresql. The
plain way beside ours: a row at a time into a table with four secondary indexes, at a tenth of the size.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import resource
import secrets
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import COUNTIES, city_of
from qilu_contract.wire.ids import enterprise_id, unit_id
from rich.console import Console
from rich.table import Table
from served_platform import served_platform

UNITS = int(os.environ.get("QILU_BENCH_UNITS", "10000000"))
DATABASES = os.environ.get("QILU_BENCH_DB", "sqlite,postgresql").split(",")
PER_ENTERPRISE = 33
REPORT_BATCH = 5_000
REPORTED = min(UNITS, 500_000)
READS = int(os.environ.get("QILU_BENCH_READS", "300"))
KEY = "the-admin-key-of-this-bench"
QILU = Path(sys.executable).parent / "qilu"
console = Console(width=110)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {os.cpu_count()} cores (load {load:.1f}), {platform.system()}, "
        f"CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def shares() -> list[tuple[str, str, int]]:
    """(county, class, units): 97 of 100 are motors and boilers, as in a province."""
    weights = dict.fromkeys(CATALOGUE, 0.5) | {"motor": 80.0, "boiler": 17.0}
    total = sum(weights.values()) * len(COUNTIES)
    return [
        (county, class_, max(1, round(UNITS * weights[class_] / total)))
        for county in sorted(COUNTIES)
        for class_ in sorted(CATALOGUE)
    ]


def enterprises_of_a_county() -> int:
    return max(1, UNITS // PER_ENTERPRISE // len(COUNTIES))


def write_files(folder: Path) -> tuple[Path, Path, int]:
    """Files of enterprises and units as a province would send them: sorted by id, owners mixed."""
    owners, things, number = folder / "enterprises.csv", folder / "units.csv", 0
    many = enterprises_of_a_county()
    with owners.open("w") as file:
        file.write("id,name,county,industry\n")
        for county in sorted(COUNTIES):
            file.writelines(f"{enterprise_id(county, n)},Firm {n},{county},C34\n" for n in range(many))
    with things.open("w") as file:
        file.write("id,class,enterprise\n")
        for county, class_, count in shares():
            number += count
            file.writelines(
                f"{unit_id(county, class_, n)},{class_},{enterprise_id(county, n * 7919 % many)}\n"
                for n in range(1, count + 1)
            )
    return owners, things, number


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def file_size(url: str) -> int:
    return Path(url.removeprefix("sqlite:///")).stat().st_size


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, which are more reliable than wall time on a busy machine."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def p99(seconds: list[float]) -> float:
    """Milliseconds."""
    return sorted(seconds)[max(0, int(len(seconds) * 0.99) - 1)] * 1000


def serving(url: str, folder: Path) -> AbstractContextManager[tuple[str, int]]:
    """The platform in a separate process, without a limit of requests."""
    environment = {"QILU_API_KEY": KEY, "QILU_PLATFORM_RATE_PER_S": "0"}
    return served_platform(["--db", url], folder, random.randrange(20_000, 32_000), environment)


def plain_sqlite(folder: Path, rows: list[tuple[str, ...]]) -> float:
    connection = sqlite3.connect(folder / "plain.db")
    connection.execute("PRAGMA journal_mode = WAL")
    return _plain(connection, "INSERT INTO units VALUES (?, ?, ?, ?, ?)", rows)


def plain_postgresql(url: str, rows: list[tuple[str, ...]]) -> float:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE SCHEMA plain")
        connection.execute("SET search_path = plain")
        return _plain(connection, "INSERT INTO units VALUES (%s, %s, %s, %s, %s)", rows)


def _plain(connection: Any, insert: str, rows: list[tuple[str, ...]]) -> float:
    """Rows a second."""
    execute = connection.execute
    execute(
        "CREATE TABLE units (id TEXT PRIMARY KEY, class TEXT, enterprise TEXT, county TEXT, identifier TEXT)"
    )
    execute("CREATE INDEX a ON units (enterprise)")
    execute("CREATE INDEX b ON units (county)")
    execute("CREATE INDEX c ON units (class)")
    execute("CREATE UNIQUE INDEX d ON units (identifier)")
    began = time.perf_counter()
    for row in rows:
        execute(insert, row)
    connection.commit()
    return len(rows) / (time.perf_counter() - began)


def plain_rows() -> list[tuple[str, ...]]:
    """In no order, with random identifiers: what a registry has that numbers things as they come."""
    random.seed(1)
    counties = sorted(COUNTIES)
    rows = []
    for _ in range(max(1000, UNITS // 10)):
        county = random.choice(counties)
        owner = enterprise_id(county, random.randrange(enterprises_of_a_county()))
        rows.append(
            (
                secrets.token_hex(8),
                "motor",
                owner,
                county,
                f"88.{county[:4]}00.{owner}/{secrets.token_hex(8)}",
            )
        )
    return rows


async def pump(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, 1 << 18):
            yield data


async def import_file(client: httpx.AsyncClient, book: str, path: Path) -> tuple[dict[str, Any], float]:
    began = time.perf_counter()
    answer = await client.post(
        f"/v1/imports?book={book}", content=pump(path), headers={"Content-Type": "text/csv"}, timeout=None
    )
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    assert job["bad"] == 0, job
    return job, time.perf_counter() - began


async def timed(call: Callable[[], Awaitable[httpx.Response]]) -> float:
    began = time.perf_counter()
    answer = await call()
    assert answer.is_success, answer.text
    return time.perf_counter() - began


async def others(client: httpx.AsyncClient, stop: asyncio.Event) -> dict[str, list[float]]:
    """Requests of other clients meanwhile, 40 per second: reads, and single creates."""
    found: dict[str, list[float]] = {"GET programme": [], "GET unit": [], "GET page": [], "POST unit": []}
    county = sorted(COUNTIES)[0]
    owner, unit = enterprise_id(county, 0), unit_id(county, "boiler", 1)
    while not stop.is_set():
        for name, call in {
            "GET programme": lambda: client.get("/v1/programme"),
            "GET unit": lambda: client.get(f"/v1/units?identifier=88.{city_of(county)}.{owner}/{unit}"),
            "GET page": lambda: client.get(f"/v1/units?county={county}"),
            "POST unit": lambda: client.post("/v1/units", json={"class": "motor", "enterprise": owner}),
        }.items():
            found[name].append(await timed(call))
        await asyncio.sleep(0.1)
    return found


async def measure(url: str, folder: Path, files: tuple[Path, Path, int], plain: float) -> None:
    owners, things, number = files
    rows: list[tuple[str, str]] = []
    headers = {"Authorization": f"Bearer {KEY}"}
    before_load = os.getloadavg()[0]
    with serving(url, folder) as (address, pid):
        async with (
            httpx.AsyncClient(base_url=address, headers=headers, timeout=120, trust_env=False) as client,
            httpx.AsyncClient(base_url=address, headers=headers, timeout=120, trust_env=False) as second,
        ):
            job, seconds = await import_file(client, "enterprises", owners)
            rows.append(("load before, and after the import of units", f"{before_load:.1f}"))
            rows.append(("import of enterprises", f"{job['created'] / seconds:,.0f}/s"))
            stop = asyncio.Event()
            meanwhile = asyncio.create_task(others(second, stop))
            before = cpu_s(pid)
            job, seconds = await import_file(client, "units", things)
            used = (cpu_s(pid) - before) / number
            stop.set()
            waited = await meanwhile
            rows[0] = (rows[0][0], f"{rows[0][1]}, {os.getloadavg()[0]:.1f}")
            assert job["created"] == number
            rate = number / seconds
            rows.append(("import of units, end to end", f"{number:,} at {rate:,.0f}/s"))
            rows.append(("its CPU in the platform", f"{used * 1e6:.1f} µs per unit"))
            rows.append(("the simple method, a tenth of it", f"{plain:,.0f}/s (ratio {rate / plain:.1f})"))
            for name, each in waited.items():
                rows.append((f"p99 of {name} meanwhile", f"{p99(each):.1f} ms of {len(each)}"))
            ids = await read_ids(client)
            before = cpu_s(pid)
            rows.append(("onboarding reports", f"{await onboard(client, ids):,.0f} units/s"))
            rows.append(
                ("its CPU in the platform", f"{(cpu_s(pid) - before) / len(ids) * 1e6:.1f} µs per unit")
            )
            for name, path in queries(ids):
                taken = [await timed(lambda p=path: client.get(next(p))) for _ in range(READS)]
                rows.append(
                    (f"p99 of {name}", f"{p99(taken):.1f} ms (median {statistics.median(taken) * 1000:.1f})")
                )
            if url.startswith("sqlite"):
                rows.append(("file", f"{file_size(url) / number:.0f} B a unit"))
            rows.append(("resident memory, most", f"{resident_mb(pid):,.0f} MB"))
    began = time.perf_counter()
    used = audited(url)
    took = time.perf_counter() - began
    rows.append(
        ("audit: time, and CPU of its process", f"{took:.1f} s, {used / number * 1e6:.1f} µs per unit")
    )
    table = Table(title=f"Registry, {url.partition(':')[0]}\n{machine()}", title_justify="left")
    table.add_column("what")
    table.add_column("measured", justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def audited(url: str) -> float:
    """CPU seconds of `qilu platform audit`, its start included, which finds nothing wrong."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([QILU, "platform", "audit", "--db", url], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


async def read_ids(client: httpx.AsyncClient) -> list[str]:
    """Units from all over the province, mixed: as gateways report them."""
    counties = sorted(COUNTIES)
    many = min(count for _, class_, count in shares() if class_ == "motor")
    step = max(1, many * len(counties) // REPORTED)
    ids = [unit_id(county, "motor", n) for n in range(1, many, step) for county in counties][:REPORTED]
    assert (await client.get(f"/v1/units/{ids[-1]}")).status_code == 200
    return ids


async def onboard(client: httpx.AsyncClient, ids: list[str]) -> float:
    """Reports of 5,000 units, two on their way at a time."""
    bodies = [
        json.dumps(
            {"readings": [{"unit": id_, "ts_ms": 1_767_225_600_000} for id_ in ids[at : at + REPORT_BATCH]]}
        )
        for at in range(0, len(ids), REPORT_BATCH)
    ]
    waiting, counted = iter(bodies), 0

    async def gateway() -> None:
        nonlocal counted
        for body in waiting:
            answer = await client.post(
                "/v1/ingest/first-readings", content=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code == 200, answer.text
            counted += answer.json()["counted"]

    began = time.perf_counter()
    await asyncio.gather(gateway(), gateway())
    seconds = time.perf_counter() - began
    assert counted == len(ids)
    return counted / seconds


def queries(ids: list[str]) -> list[tuple[str, Iterator[str]]]:
    counties = sorted(COUNTIES)
    many = enterprises_of_a_county()

    def always(make: Callable[[], str]) -> Iterator[str]:
        while True:
            yield make()

    def page(**query: str) -> str:
        return str(httpx.URL("/v1/units", params=query | {"cursor": random.choice(ids)}))

    def a_county() -> str:
        return random.choice(counties)

    return [
        ("GET programme", always(lambda: "/v1/programme")),
        ("unit by id", always(lambda: f"/v1/units/{random.choice(ids)}")),
        ("a page", always(lambda: page())),
        ("a page of a county", always(lambda: str(httpx.URL("/v1/units", params={"county": a_county()})))),
        ("a page of a city", always(lambda: page(city=city_of(a_county())))),
        ("a page of a class", always(lambda: page(**{"class": random.choice(sorted(CATALOGUE))}))),
        (
            "a page of a county and class",
            always(lambda: str(httpx.URL("/v1/units", params={"county": a_county(), "class": "motor"}))),
        ),
        (
            "a page of an enterprise",
            always(lambda: f"/v1/units?enterprise={enterprise_id(a_county(), random.randrange(many))}"),
        ),
        ("a page of an industry", always(lambda: page(industry="C34"))),
        ("a page of an industry that has none", always(lambda: page(industry="C13"))),
        ("a page on cloud", always(lambda: page(state="on_cloud"))),
        ("a page registered", always(lambda: page(state="registered"))),
        ("a page suspended", always(lambda: page(state="suspended"))),
        (
            "a page of enterprises by name",
            always(lambda: f"/v1/enterprises?name=Firm {random.randrange(many)}"),
        ),
        ("a page of enterprises of a city", always(lambda: f"/v1/enterprises?city={city_of(a_county())}")),
    ]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    return write_files(tmp_path_factory.mktemp("files"))


@pytest.mark.skipif("sqlite" not in DATABASES, reason="QILU_BENCH_DB")
async def bench_registry_sqlite(tmp_path: Path, files: tuple[Path, Path, int]) -> None:
    plain = plain_sqlite(tmp_path, plain_rows())
    await measure(f"sqlite:///{tmp_path}/registry.sqlite", tmp_path, files, plain)


@pytest.mark.skipif("postgresql" not in DATABASES, reason="QILU_BENCH_DB")
async def bench_registry_postgresql(tmp_path: Path, files: tuple[Path, Path, int], postgres_url: str) -> None:
    plain = plain_postgresql(postgres_url, plain_rows()[:20_000])
    await measure(postgres_url, tmp_path, files, plain)
