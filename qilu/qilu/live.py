"""`qilu programme run --live`: the programme played through the real pipeline.

Three processes share the work: one runs broker, gateway and store (unless they run elsewhere), one is the
platform, and one plays. The last is this same command with the addresses of platform and broker.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import structlog
from qilu_common.secrets import secret
from qilu_contract.errors import ConfigError
from qilu_programme.months import MONTHS
from qilu_programme.scenario import Scenario
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qilu.logfile import log_stream
from qilu.player import Player
from qilu.player_platform import Target
from qilu.process import become_service, on_stop_signals
from qilu.replay import Month, Replay
from qilu.run_record import FILE_NAME, KIND, RunRecord

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

        toggling: set[asyncio.Task[None]] = set()

        def toggle() -> None:
            task = loop.create_task(player.toggle(), name="pause")
            toggling.add(task)
            task.add_done_callback(toggling.discard)

        def show_pause(paused: bool) -> None:
            console.print("Paused. Press Ctrl-Z again to resume." if paused else "Resumed.")

        player.paused = show_pause
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
