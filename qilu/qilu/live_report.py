"""Report of a live run of the programme: what was stored, lost or stored twice, and what it cost."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import QiluError
from qilu_contract.store import Store
from qilu_programme.months import LABELS, MONTHS
from rich.console import Console

from qilu.month_fleet import month_start_ms
from qilu.report import count_duplicates
from qilu.run_record import RunRecord
from qilu.stack import Stack


async def report_of(stack: Stack, state: Path) -> dict[str, Any]:
    """The report of the run in `stack`, whose directory is `state`; without the disk space."""
    record = RunRecord.load(state / "programme")
    counters = stack.gateway.counters
    began_s = time.monotonic()
    stored, lost = await _compare(stack.store, record)
    duplicates = await count_duplicates(stack.store)
    record.stages["checking"] = round(time.monotonic() - began_s, 3)
    return as_report(record) | {
        "accepted": counters.accepted,
        "stored": stored,
        "spooled": counters.spooled,
        "dead_lettered": counters.dead_lettered,
        "redelivered": counters.redelivered,
        "duplicates": duplicates,
        "lost": lost,
        "cpu_s": {
            "gateway": round(time.process_time(), 1),
            "platform": _cpu_s(stack.platform_pid),
            "broker": _cpu_s(stack.broker_pid),
            "player": record.cpu_s,
        },
        "peak_rss_mb": {
            "gateway": _peak_mb(os.getpid()),
            "platform": _peak_mb(stack.platform_pid),
            "broker": _peak_mb(stack.broker_pid),
            "player": record.peak_rss_mb,
        },
    }


def as_report(record: RunRecord) -> dict[str, Any]:
    """The part of the report that the record alone gives."""
    counts = record.months[-1].counts if record.months else {}
    return {
        "scenario": record.scenario,
        "seed": record.seed,
        "scale": record.scale,
        "months": len(record.months),
        "last_month": record.months[-1].month if record.months else None,
        "finished": len(record.months) == MONTHS,
        "starts": record.starts,
        "lost": counts.get("units_registered", 0) - counts.get("units_on_cloud", 0),
        "units_registered": counts.get("units_registered", 0),
        "units_on_cloud": counts.get("units_on_cloud", 0),
        "enterprises_on_cloud": counts.get("enterprises_on_cloud", 0),
        "seconds": round(record.seconds, 1),
        "stages": record.stages,
        "counts": counts,
    }


async def _compare(store: Store, record: RunRecord) -> tuple[int, int]:
    """Number of readings of the run's months in the store, and number of missing ones: counted by class and
    county once the run is finished, until then by class."""
    start_ms, end_ms = month_start_ms(0), month_start_ms(MONTHS)
    stored = lost = 0
    counts = record.months[-1].counts if record.months else {}
    for name in CATALOGUE:
        found = await store.count_by(name, "county", start_ms, end_ms)
        total = sum(found.values())
        stored += total
        cells = record.cells.get(name)
        if cells is None:
            lost += max(0, counts.get(f"class/{name}", 0) - total)
        else:
            lost += sum(max(0, wanted - found.get(county, 0)) for county, wanted in cells.items())
    return stored, lost


def _peak_mb(pid: int | None) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if "VmHWM" in line), None)


def _cpu_s(pid: int | None) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return round((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 1)


def disk_bytes(state: Path) -> dict[str, int]:
    """Disk space of a stack that has ended, by part."""
    return {
        "registry": _size(state, "registry.sqlite*"),
        "readings": _size(state, "readings.duckdb*"),
        "gateway": _size(state / "gateway", "*"),
        "broker": _size(state / "broker", "**/*"),
    }


def _size(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())


def show_report(report: dict[str, Any], console: Console) -> None:
    """The report in a few lines."""
    lines = [
        f"{report['last_month'] or LABELS[0]}: {report['enterprises_on_cloud']:,} enterprises and "
        f"{report['units_on_cloud']:,} units on cloud, in {report['seconds']:,.0f} s"
        + (f" and {report['starts']} starts" if report["starts"] > 1 else "")
    ]
    if "stored" in report:
        lines.append(
            f"accepted {report['accepted']:,}, stored {report['stored']:,}, lost {report['lost']:,}, twice "
            f"{report['duplicates']:,}, dead-lettered {report['dead_lettered']:,}"
        )
    stages = sorted(report["stages"].items(), key=lambda each: -each[1])
    lines.append("where the time went: " + ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in stages))
    for what, unit in (("cpu_s", "CPU s"), ("peak_rss_mb", "MB at most")):
        if what in report:
            of = ", ".join(
                f"{name} {value:,.0f}" for name, value in report[what].items() if value is not None
            )
            lines.append(f"{unit}: {of}")
    if "disk_bytes" in report:
        disk = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in report["disk_bytes"].items())
        lines.append(f"disk: {disk}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def check_report(report: dict[str, Any]) -> None:
    """Raises QiluError when something is lost or stored twice."""
    if report["lost"] or report.get("duplicates"):
        raise QiluError(
            f"{report['lost']} units that must be on cloud are not; {report.get('duplicates', 0)} readings "
            "are stored twice."
        )
