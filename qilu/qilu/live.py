"""`qilu programme run --live`: the programme played through the real pipeline.

Three processes share the work: one runs broker, gateway and store (unless they run elsewhere), one is the
platform, and one plays. The last is this same command with the addresses of platform and broker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import typer
from qilu_common.secrets import secret
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError, QiluError
from qilu_contract.store import Store
from qilu_programme.months import LABELS, MONTHS
from qilu_programme.scenario import Scenario
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qilu.children import end, ended_by
from qilu.logfile import log_stream
from qilu.month_fleet import month_start_ms
from qilu.player import Player, Target
from qilu.process import become_service, on_stop_signals, stop_signal
from qilu.replay import Month, Replay
from qilu.report import count_duplicates
from qilu.run_record import FILE_NAME, KIND, RunRecord
from qilu.stack import Stack, attend
from qilu.stack_child import STOP_CHILD_S
from qilu.stack_config import Child, StackConfig

UNIT_BYTES = 300
"""Disk space of one unit: registry, readings and temporary data between them (C: docs/benchmarks.md)."""
ENTERPRISE_BYTES = 1_000
"""Disk space of one enterprise with its contracts and their entries (C)."""
RESERVE_BYTES = 2 * 1024**3
"""Disk space reserved for others: the gateway stops taking data at 0.5 GB free, and the broker keeps files as
well."""


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """Settings of a live run: `speed` in simulated seconds per second (None: full speed), `until` the last
    month. `room`: the directory of the stack that stores the data, if it is on this machine."""

    scenario: Scenario
    scale: float
    speed: float | None
    until: int
    state: Path
    room: Path | None = None


def open_record(config: LiveConfig, replay: Replay) -> RunRecord:
    """The record that the state folder holds, or a new one. Raises ConfigError when it is another run's."""
    scenario = config.scenario
    if not (config.state / FILE_NAME).exists():
        return RunRecord(
            KIND,
            scenario.name,
            scenario.text,
            scenario.seed,
            config.scale,
            replay.units,
            replay.enterprises,
        )
    record = RunRecord.load(config.state)
    asked = (scenario.text, scenario.seed, config.scale)
    if (record.text, record.seed, record.scale) != asked:
        raise ConfigError(
            f"{config.state / FILE_NAME} is of a run of {record.scenario}, seed {record.seed}, scale "
            f"{record.scale:g}: continue with those, or choose another folder with --state."
        )
    return record


def check_room(needed: int, free: int, folder: Path) -> None:
    """Raises ConfigError when a run that needs so many bytes does not fit."""
    if needed + RESERVE_BYTES > free:
        raise ConfigError(
            f"This run needs about {needed / 1e9:.1f} GB in {folder} beside {RESERVE_BYTES / 1e9:.1f} GB for "
            f"others, and {free / 1e9:.1f} GB are free: make room, choose another disk with --state, or a "
            "smaller --scale."
        )


def bytes_needed(replay: Replay, record: RunRecord) -> int:
    """Disk space that the rest of the run needs."""
    done = record.months[-1].counts if record.months else {"units_on_cloud": 0, "enterprises_on_cloud": 0}
    return (replay.units - done["units_on_cloud"]) * UNIT_BYTES + (
        replay.enterprises - done["enterprises_on_cloud"]
    ) * ENTERPRISE_BYTES


def play(config: LiveConfig, platform: str, broker: str, console: Console) -> RunRecord:
    """Play until the last month, or a signal. SIGUSR1 pauses and resumes. Raises QiluError."""
    began_s = time.monotonic()
    become_service()
    # Successes are on the screen already.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(log_stream(sys.stderr)),
    )
    with console.status(f"computing {config.scenario.name} …"):
        replay = Replay(config.scenario, config.scale)
    config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    record = open_record(config, replay)
    if config.room is not None:
        free = shutil.disk_usage(config.room).free
        check_room(bytes_needed(replay, record), free, config.room)
    record.starts += 1
    computed_s = round(time.monotonic() - began_s, 3)
    record.stages["model"] = round(record.stages.get("model", 0.0) + computed_s, 3)
    record.seconds += computed_s
    record.save(config.state)
    asyncio.run(_play(config, replay, record, Target(platform, broker, secret("QILU_API_KEY")), console))
    if len(record.months) == MONTHS and not record.cells:
        record.cells = {name: dict(counties) for name, counties in replay.cells().items()}
        record.save(config.state)
    return record


async def _play(
    config: LiveConfig, replay: Replay, record: RunRecord, target: Target, console: Console
) -> None:
    with _Line(console, replay.units) as line:
        player = Player(replay, record, target, config.state, config.speed, line.show)
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        on_stop_signals(stop.set)

        def toggle() -> None:
            paused = player.running.is_set()
            (player.running.clear if paused else player.running.set)()
            console.print("Paused. Press Ctrl-Z again to resume." if paused else "Resumed.")

        for number in (signal.SIGUSR1, signal.SIGTSTP):
            loop.add_signal_handler(number, toggle)
        await player.play(config.until, stop)


class _Line:
    """A progress bar with the remaining time on a terminal; elsewhere one line per month."""

    def __init__(self, console: Console, units: int) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("units, left:"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task("", total=units)
        self._month = -1

    def __enter__(self) -> _Line:
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)

    def show(self, month: Month, published: int, counted: int) -> None:
        expected = month.expected
        title = f"{month.label}  {expected['enterprises_on_cloud']:,} enterprises"
        self._bar.update(self._task, description=title, completed=counted)
        if counted == expected["units_on_cloud"] and month.month != self._month:
            self._month = month.month
            if not self._console.is_terminal:
                self._console.print(
                    f"{title}, {counted:,} units on cloud: the platform's counts are the model's",
                    highlight=False,
                    soft_wrap=True,
                )


def play_embedded(stack: StackConfig, words: list[str], console: Console) -> dict[str, Any]:
    """Start a stack, play the programme into it, and report. Raises QiluError; exits with the player's exit
    code when the player has printed the error."""
    child = Child("programme", [*words, "--room", str(stack.state)], role="admin", shown=True, afresh=False)
    return asyncio.run(_embedded(replace(stack, child=child), console))


async def _embedded(config: StackConfig, console: Console) -> dict[str, Any]:
    stopping = stop_signal()
    # Ignore a pause until a handler is set: it must neither end the player, which inherits this, nor stop
    # this process, which reports that the stack is up before the handler below is set.
    for number in (signal.SIGUSR1, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    async with Stack(config, console) as stack:

        def pause() -> None:
            if stack.child.process.returncode is None:
                stack.child.process.send_signal(signal.SIGUSR1)

        asyncio.get_running_loop().add_signal_handler(signal.SIGTSTP, pause)
        await attend(stack, stopping)
        if stopping.is_set():
            console.print("Stopping …")
            await end(stack.child.process, STOP_CHILD_S)
        elif (code := stack.child.process.returncode) is not None and code < 0:
            raise QiluError(f"The player ended ({ended_by(code)}): the same command continues from there.")
        elif code:
            raise typer.Exit(code)
        record = RunRecord.load(config.state / "programme")
        counters = stack.gateway.counters
        began_s = time.monotonic()
        stored, lost = await _compare(stack.store, record)
        duplicates = await count_duplicates(stack.store)
        record.stages["checking"] = round(time.monotonic() - began_s, 3)
        report = as_report(record) | {
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
    report["disk_bytes"] = {
        "registry": _size(config.state, "registry.sqlite*"),
        "readings": _size(config.state, "readings.duckdb*"),
        "gateway": _size(config.state / "gateway", "*"),
        "broker": _size(config.state / "broker", "**/*"),
    }
    return report


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
