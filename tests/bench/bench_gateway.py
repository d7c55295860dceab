"""Cost of the gateway, in one run on one machine. Prints, and writes JSON; asserts nothing about time.

    make bench-gateway [ARGS="--json FILE"]
    make bench-gateway ARGS="--only json_1_10k --rounds 1"      one case, in about a minute

Each case is a fleet (JSON or Sparkplug, one or fifty readings a message, so many units) whose messages wait
in a real Mosquitto's queue before the gateway, a separate process, starts. Every figure is a difference
between two moments of that one run: *first contact* is the first pass over all units, *steady* what comes
after that. So no start is in any figure. CPU seconds are the process's own, from /proc.

- The null sink takes whatever is posted and keeps nothing. New units are registered and have never sent a
  reading: a first contact includes their admission and the report of their first reading. A Sparkplug unit is
  born in a run before; its first contact is its first data after a restart.
- The share of the ceiling: points a second that a real InfluxDB, alone on one core, takes from the gateway,
  and from prepared bodies of the same shape, by turns. Broker, gateway, platform, publisher and the poster of
  the bodies are on the other core. The CPU of InfluxDB is shown beside.

All that repeats does so up to three times, by turns; figures are medians. The run ends within --minutes: what
does not fit is null in the JSON, and `measured_less` names it. A busy machine makes CPU seconds longer, too,
by half and more: compare runs at like loads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from shutil import which
from statistics import median
from typing import Any, NamedTuple, TypeVar

import httpx
from bench_storage import machine
from conftest import SBIN, Influx, InfluxServer, Mosquitto
from gateway_load import Fleet, Gateway, Kind, Sink, cpu_s, pin, publish, resident_bytes
from gateway_world import FakePlatform
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

_T = TypeVar("_T")
STORE_CORE, GATEWAY_CORE = (0, 1) if (os.cpu_count() or 1) > 1 else (0, 0)
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
STEADY = 300_000
"""Messages of one reading between the two marks of a steady run; at least one of each unit, because the
roll-ups sum a minute of all units at once."""
LISTS = 30_000
"""Messages of fifty."""
WARM = 20_000
"""Readings between the first pass and the first mark."""
EVERY_S = 0.25
"""Between two looks at the gateway."""
ROUNDS = 3
NOISE_BYTES = 16_000_000
"""By so much the resident sizes of two gateways with equally many units differ; less than twice that
between two sizes says nothing of a unit."""
DUCKDB_ROWS = 10_000_000
DUCKDB_S = 150
"""Seconds for these rows, or so many fewer rows."""


class TimeIsOver(Exception):
    """The run's time ended before a case was complete."""


class Moment(NamedTuple):
    at_s: float
    stored: float
    gateway_s: float
    store_s: float


class Span(NamedTuple):
    """Between two moments, a reading: microseconds of CPU, the gateway's and the store's, and of time."""

    readings: float
    gateway_us: float
    store_us: float
    wall_us: float


def between(moments: list[Moment], low: float, high: float) -> Span | None:
    """From when `low` readings were stored until `high` were, or as far as it came."""
    after = [moment for moment in moments if moment.stored >= low]
    if not after:
        return None
    begin, end = after[0], next((moment for moment in after if moment.stored >= high), after[-1])
    readings = end.stored - begin.stored
    if readings < (high - low) / 10:
        return None
    return Span(
        readings,
        (end.gateway_s - begin.gateway_s) / readings * 1e6,
        (end.store_s - begin.store_s) / readings * 1e6,
        (end.at_s - begin.at_s) / readings * 1e6,
    )


@dataclass
class Findings:
    cpu: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)
    influx: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    starts_s: list[float] = field(default_factory=list)
    resident: dict[tuple[Kind, int], int] = field(default_factory=dict)
    duckdb: dict[str, float] = field(default_factory=dict)
    less: list[str] = field(default_factory=list)
    """Cases that were measured fewer times than planned, or not at all."""
    loads: list[float] = field(default_factory=list)
    spins_ms: list[float] = field(default_factory=list)
    """The same small piece of work, now and then: what the machine's speed was."""

    def look(self) -> None:
        self.loads.append(round(os.getloadavg()[0], 1))
        began_s = time.process_time()
        sum(number * number for number in range(200_000))
        self.spins_ms.append(round((time.process_time() - began_s) * 1000, 1))


class Station:
    """A broker, a fleet and its gateway."""

    def __init__(self, kind: Kind, size: int, lab: Lab) -> None:
        self.lab, self.fleet = lab, Fleet(kind, size)
        self.fleet.register(lab.platform)
        folder = lab.folder / secrets.token_hex(4)
        (folder / "broker").mkdir(parents=True)
        self.broker = Mosquitto(lab.mosquitto, folder / "broker")
        config = folder / "broker/mosquitto.conf"  # saving a full queue every second is not what is measured
        config.write_text(config.read_text().replace("autosave_interval 1\n", ""))
        self.broker.start()
        pin(self.broker.pid, GATEWAY_CORE)
        self.gateway = Gateway(self.broker.url, lab.platform.url, folder / "gateway")
        self.gateway.subscribe(lab.sink.url)

    def be_born(self) -> None:
        """Births of all units. Raises TimeIsOver."""
        births, size, lab = list(self.fleet.births()), self.fleet.size, self.lab
        if births:
            lab.within_time(publish(self.broker, births))
            moments = self.follow(lab.sink.url, size)
            span = between(moments, size / 20, size * 0.95)
            if span is not None:
                name = f"birth_{self.fleet.kind}_{lab.label(size)}"
                lab.found.cpu.setdefault(name, []).append(span.gateway_us)

    def run(self, store: str, readings: int, count: int, store_pid: int | None = None) -> list[Moment]:
        """A pass of all units, and `count` messages more."""
        warm = WARM // readings
        said = chain(self.fleet.messages(self.fleet.size), self.fleet.messages(warm + count, readings))
        self.lab.within_time(publish(self.broker, said))
        return self.follow(store, self.fleet.size + (warm + count) * readings, store_pid)

    def follow(self, store: str, total: int, store_pid: int | None = None) -> list[Moment]:
        """Start the gateway and look on until it has stored so many readings, or the time is over."""
        gateway, lab = self.gateway, self.lab
        moments: list[Moment] = []
        began_s = time.monotonic()
        gateway.start(store, GATEWAY_CORE)
        while True:
            stored = gateway.metric("stored_total")
            now_s = time.monotonic()
            if stored > 0:
                if not moments:
                    lab.found.starts_s.append(now_s - began_s)
                moments.append(
                    Moment(now_s, stored, cpu_s(gateway.pid), cpu_s(store_pid) if store_pid else 0.0)
                )
                lab.tell(stored / total)
            if stored >= total or now_s > lab.deadline_s:
                break
            gateway.check(lab.deadline_s + 60)
            time.sleep(EVERY_S if moments else 0.02)
        if moments and moments[-1].stored >= total:
            lab.found.resident[self.fleet.kind, self.fleet.size] = resident_bytes(gateway.pid)
            gateway.stop()
        else:
            gateway.kill()
        return moments

    def close(self) -> None:
        self.gateway.kill()
        self.broker.kill()


class Lab:
    """The machine with everything on it that the cases share."""

    def __init__(self, folder: Path, deadline_s: float, tell: Callable[[float], None]) -> None:
        mosquitto, influxd = which("mosquitto", path=SBIN), which("influxd", path=SBIN)
        assert mosquitto is not None, "Mosquitto is needed: make servers"
        assert influxd is not None, "InfluxDB is needed: make servers"
        self.folder, self.deadline_s, self.tell = folder, deadline_s, tell
        self.mosquitto = mosquitto
        self.found = Findings()
        self.sink = Sink()
        self.platform = FakePlatform()
        (folder / "influx").mkdir()
        self.influx = InfluxServer(influxd, folder / "influx")
        self._stations: dict[tuple[Kind, int], Station] = {}

    def within_time(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Its result. Raises TimeIsOver."""

        async def bounded() -> _T:
            async with asyncio.timeout(self.deadline_s - time.monotonic()):
                return await work

        try:
            return asyncio.run(bounded())
        except TimeoutError as error:
            raise TimeIsOver from error

    @staticmethod
    def label(size: int) -> str:
        return next(label for label, each in SIZES.items() if each == size)

    def station(self, kind: Kind, size: int) -> Station:
        if (kind, size) not in self._stations:
            station = self._stations[kind, size] = Station(kind, size, self)
            station.be_born()
        return self._stations[kind, size]

    def free(self, kind: Kind, size: int) -> None:
        self._stations.pop((kind, size)).close()

    def close(self) -> None:
        for station in self._stations.values():
            station.close()
        self.platform.stop()
        self.sink.stop()
        self.influx.kill()

    # -- cases

    def to_sink(self, kind: Kind, readings: int, label: str) -> None:
        size, found = SIZES[label], self.found
        pin(os.getpid(), STORE_CORE)
        station = self.station(kind, size)
        count = max(STEADY, size) if readings == 1 else LISTS
        moments = station.run(self.sink.url, readings, count)
        name, begin = f"{kind}_{readings}_{label}", size + WARM
        spans = {name: (begin, begin + count * readings)}
        if label != "10k":
            spans[f"first_{kind}_{label}"] = (size // 20, int(size * 0.95))
            self.free(kind, size)
        for each, (low, high) in spans.items():
            span = between(moments, low, high)
            if span is None:
                found.less.append(f"{each}: the time was over before it began")
                continue
            found.cpu.setdefault(each, []).append(span.gateway_us)
            if span.readings < (high - low) * 0.8:
                found.less.append(f"{each}: over {span.readings:,.0f} readings instead of {high - low:,}")

    def share(self, kind: Kind, readings: int, label: str) -> None:
        """(a), then (b)."""
        size = SIZES[label]
        count = STEADY if readings == 1 else LISTS
        station = self.station(kind, size)
        cold = not self.influx.running
        self.influx.start()
        pin(self.influx.pid, STORE_CORE)
        pin(os.getpid(), GATEWAY_CORE)
        if cold:
            self.within_time(self._post(Fleet(kind, size), readings, count // 3))
        ceiling = self.within_time(self._post(Fleet(kind, size), readings, count))
        database = Influx(self.influx)
        moments = station.run(database.url, readings, count, self.influx.pid)
        _drop(database)
        begin = size + WARM
        span = between(moments, begin, begin + count * readings)
        name = f"{kind}_{readings}_{label}"
        if span is None:
            self.found.less.append(f"share_of_ceiling {name}: the time was over before it began")
            return
        self.found.shares.setdefault(name, []).append(ceiling.wall_us / span.wall_us)
        self.found.influx.setdefault(name, []).append(
            {
                "ceiling_points_per_s": 1e6 / ceiling.wall_us,
                "ceiling_influxdb_cpu_s_per_million": ceiling.store_us,
                "points_per_s": 1e6 / span.wall_us,
                "influxdb_cpu_s_per_million": span.store_us,
                "gateway_cpu_s_per_million": span.gateway_us,
            }
        )

    async def _post(self, fleet: Fleet, readings: int, count: int) -> Span:
        """Prepared bodies, on two connections, after each unit's first point."""
        first, rest = fleet.bodies(fleet.size), fleet.bodies(count, readings)
        database = Influx(self.influx)
        async with httpx.AsyncClient(base_url=database.http, timeout=60, trust_env=False) as http:

            async def mine(bodies: list[bytes]) -> None:
                for body in bodies:
                    answer = await http.post(
                        "/write", params={"db": database.database, "precision": "ms"}, content=body
                    )
                    answer.raise_for_status()

            await http.post("/query", data={"q": f'CREATE DATABASE "{database.database}"'})
            await mine(first)
            began_s, before_s = time.monotonic(), cpu_s(self.influx.pid)
            await asyncio.gather(mine(rest[::2]), mine(rest[1::2]))
            took_s, used_s = time.monotonic() - began_s, cpu_s(self.influx.pid) - before_s
        await asyncio.to_thread(_drop, database)
        readings *= count
        return Span(readings, 0.0, used_s / readings * 1e6, took_s / readings * 1e6)

    def in_duckdb(self) -> None:
        left_s = self.deadline_s - time.monotonic()
        rows = DUCKDB_ROWS if left_s > DUCKDB_S else max(int(left_s / DUCKDB_S * DUCKDB_ROWS), 500_000)
        if rows < DUCKDB_ROWS:
            self.found.less.append(f"duckdb: random order into {rows:,} rows instead of {DUCKDB_ROWS:,}")
        words = [sys.executable, "-m", "duckdb_points", f"duckdb:///{self.folder}/points.duckdb", str(rows)]
        patience_s = self.deadline_s - time.monotonic() + 60
        try:
            said = subprocess.run(
                words, check=True, capture_output=True, text=True, timeout=patience_s
            ).stdout
        except subprocess.TimeoutExpired as error:
            raise TimeIsOver from error
        self.found.duckdb = json.loads(said)


def _drop(database: Influx) -> None:
    query = {"q": f'DROP DATABASE "{database.database}"'}
    httpx.post(f"{database.http}/query", data=query, timeout=60, trust_env=False).raise_for_status()


class Step(NamedTuple):
    name: str
    seconds: float
    """About, on a machine at peace: for the bar, and the least time left with which it begins."""
    work: Callable[[Lab], None]
    rounds: int


def steps(rounds: int = ROUNDS) -> list[Step]:
    found: list[Step] = []
    small = [(kind, readings) for readings in (1, 50) for kind in KINDS]
    for kind, readings in small:
        name = f"{kind}_{readings}_10k"
        found.append(Step(name, 25, lambda lab, k=kind, r=readings: lab.to_sink(k, r, "10k"), rounds))
    for kind, readings in small:
        name = f"share_{kind}_{readings}_10k"
        found.append(Step(name, 40, lambda lab, k=kind, r=readings: lab.share(k, r, "10k"), rounds))
    large = [
        Step(f"{kind}_1_{label}", seconds, lambda lab, k=kind, n=label: lab.to_sink(k, 1, n), 1)
        for label, seconds in (("100k", 50), ("1m", 240))
        for kind in KINDS
    ]
    return [*found, *large[:2], Step("duckdb", 120, Lab.in_duckdb, 1), *large[2:]]


KINDS: tuple[Kind, Kind] = ("json", "sparkplug")
SHARES = tuple(f"{kind}_{readings}_10k" for readings in (1, 50) for kind in KINDS)
CPU = (
    *SHARES,
    *(f"{kind}_1_{label}" for label in ("100k", "1m") for kind in KINDS),
    *(f"first_{kind}_100k" for kind in KINDS),
)
"""Figures that every report has; null when they were not measured."""


def bytes_per_unit(resident: dict[int, int]) -> int | None:
    """From the resident sizes at several numbers of units; None when they differ by noise alone."""
    if len(resident) < 2:
        return None
    (few, least), *_, (many, most) = sorted(resident.items())
    return round((most - least) / (many - few)) if most - least >= 2 * NOISE_BYTES else None


def medians(figures: dict[str, list[float]], names: Sequence[str], digits: int) -> dict[str, float | None]:
    found = {name: round(median(each), digits) for name, each in figures.items()}
    return {**dict.fromkeys(names), **found}


def report(found: Findings, took_s: float) -> dict[str, Any]:
    memory = {}
    for kind in KINDS:
        resident = {size: most for (of, size), most in found.resident.items() if of == kind}
        memory[kind] = bytes_per_unit(resident)
        if memory[kind] is None:
            found.less.append(f"memory_bytes_per_unit {kind}: not measured")
        elif max(resident) < SIZES["1m"]:
            found.less.append(
                f"memory_bytes_per_unit {kind}: from {min(resident):,} to {max(resident):,} units"
            )
    late = (
        {f"random_order_{found.duckdb['rows'] / 1e6:g}m": found.duckdb["random_order"]}
        if found.duckdb
        else {}
    )
    return {
        "cpu_s_per_million": medians(found.cpu, CPU, 2),
        "share_of_ceiling": medians(found.shares, SHARES, 3),
        "start_to_first_store_s": round(median(found.starts_s), 2) if found.starts_s else None,
        "duckdb_us_per_point": {
            "in_order": found.duckdb.get("in_order"),
            **{"random_order_10m": None, **late},
        },
        "memory_bytes_per_unit": memory,
        "machine": machine(),
        "load": {"before": found.loads[0], "most": max(found.loads), "after": found.loads[-1]},
        "spin_ms": {
            "least": min(found.spins_ms),
            "median": median(found.spins_ms),
            "most": max(found.spins_ms),
        },
        "influxdb": {
            name: {key: round(median(each[key] for each in rounds), 2) for key in rounds[0]}
            for name, rounds in found.influx.items()
        },
        "rounds": {
            name: [round(figure, 3) for figure in each]
            for name, each in (*found.cpu.items(), *((f"share_{n}", e) for n, e in found.shares.items()))
        },
        "measured_less": found.less,
        "took_s": round(took_s),
    }


def show(said: dict[str, Any]) -> None:
    load = said["load"]
    title = f"{said['machine']}, load {load['before']} to {load['most']}"
    table = Table("case", "CPU-s per million", "of the ceiling", "rounds", title=title)
    for name in dict.fromkeys((*said["cpu_s_per_million"], *said["share_of_ceiling"])):
        cpu, share = said["cpu_s_per_million"].get(name), said["share_of_ceiling"].get(name)
        rounds = len(said["rounds"].get(name, [])), len(said["rounds"].get(f"share_{name}", []))
        table.add_row(
            name,
            "" if cpu is None else f"{cpu:.1f}",
            "" if share is None else f"{share:.0%}",
            " / ".join(map(str, filter(None, rounds))),
        )
    console = Console(width=110)
    console.print(table)
    console.print(f"from the start to the first store: {said['start_to_first_store_s']} s")
    console.print(f"DuckDB, µs per point: {said['duckdb_us_per_point']}")
    for kind, size in said["memory_bytes_per_unit"].items():
        console.print(f"bytes per unit, {kind}: {'not measured' if size is None else size}")
    for sentence in said["measured_less"]:
        console.print(f"measured less: {sentence}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in steps()], help="these cases")
    parser.add_argument("--minutes", type=float, default=22, help="what does not fit is left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of what is repeated, at most")
    given = parser.parse_args()
    chosen = [step for step in steps(given.rounds) if given.only is None or step.name in given.only]
    began_s = time.monotonic()
    deadline_s = began_s + given.minutes * 60
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name, Progress(*columns, console=console) as bar:
        whole = sum(step.seconds * step.rounds for step in chosen)
        task = bar.add_task("", total=whole)
        at, step = 0.0, chosen[0]
        lab = Lab(
            Path(name), deadline_s, lambda part: bar.update(task, completed=at + step.seconds * min(part, 1))
        )
        took_s: dict[str, float] = {}
        try:
            for turn in range(given.rounds):
                for step in [each for each in chosen if turn < each.rounds]:
                    lab.found.look()
                    bar.update(task, description=f"{step.name} ({turn + 1} of {step.rounds})")
                    step_s = time.monotonic()
                    try:
                        if step_s + took_s.get(step.name, step.seconds) >= deadline_s:
                            raise TimeIsOver
                        step.work(lab)
                        took_s.setdefault(step.name, time.monotonic() - step_s)
                    except TimeIsOver:
                        if turn == 0:
                            lab.found.less.append(f"{step.name}: not measured, the time was over")
                    at += step.seconds
                    bar.update(task, completed=at)
            lab.found.look()
        finally:
            lab.close()
    said = report(lab.found, time.monotonic() - began_s)
    show(said)
    if given.json is not None:
        given.json.write_text(json.dumps(said, indent=2) + "\n")


if __name__ == "__main__":
    main()
