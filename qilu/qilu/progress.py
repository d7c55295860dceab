"""Progress displays of long tasks: `qilu devices run` shows a bar while the fleet registers, then one status
line of the run; `qilu devices backfill` a bar of its days; `qilu platform import` a bar of its file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:  # an import needs no simulator on its machine
    from qilu_devices.run.config import RunProgress, RunReport

SPEED_OVER = 10
"""Number of reports, one second apart, over which a run's speed is averaged."""


def slower(speed: float, wanted: float | None) -> str:
    """A note if a run is much slower than requested, else empty."""
    if wanted is None or speed > 0.85 * wanted:
        return ""
    return f"running at {speed:.2g}x instead of {wanted:g}x"


@contextmanager
def file_bar(console: Console, title: str, size: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of bytes with the remaining time, on a terminal only; call it with the bytes done."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=size)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def unit_bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of units with the remaining time, on a terminal only; call it with the units done and
    the total."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class RunLine:
    """Status line of a run, on a terminal only; elsewhere the log is enough."""

    def __init__(self, console: Console, *, whole: bool = False) -> None:
        """`whole`: progress is a share of simulated time, not of readings."""
        figure: ProgressColumn = TaskProgressColumn() if whole else MofNCompleteColumn()
        self._whole = whole
        self._late: deque[tuple[float, float]] = deque(maxlen=SPEED_OVER)  # seconds of the run, and how late
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            figure,
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __enter__(self) -> RunLine:
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)

    def show(self, progress: RunProgress) -> None:
        report = progress.report
        if report is None:
            description = f"registering {progress.registering}"
        else:
            now = datetime.fromtimestamp(report.until_ms / 1000, UTC)
            acknowledged = f"{report.readings_acked:,} readings" if self._whole else "readings"
            online = f"{report.nodes_online} of {report.enterprises} edge nodes online"
            if not report.nodes_online:
                online = "waiting for broker and gateway"
            description = (
                f"{now:%Y-%m-%d %H:%M:%S} UTC, {online}{self._slow(report)}, {acknowledged} acknowledged"
            )
        self._bar.update(
            self._task, description=description, completed=progress.done, total=progress.total or None
        )

    def _slow(self, report: RunReport) -> str:
        self._late.append((report.seconds, report.late_s))
        (then_s, before_s), (now_s, late_s) = self._late[0], self._late[-1]
        if report.speed is None or len(self._late) < SPEED_OVER:
            return ""
        note = slower(report.speed * (1.0 - (late_s - before_s) / (now_s - then_s)), report.speed)
        return f", {note}: the gateway takes no more" if note else ""
