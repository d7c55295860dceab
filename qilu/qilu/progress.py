"""What `qilu devices run` shows: a bar while the fleet registers, then one line of how the run goes."""

from __future__ import annotations

from datetime import UTC, datetime

from qilu_devices.run import RunProgress
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RunLine:
    """On a terminal only: where the output is a file, the log says enough."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
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
            said = f"registering {progress.registering}"
        else:
            now = datetime.fromtimestamp(report.until_ms / 1000, UTC)
            said = (
                f"{now:%Y-%m-%d %H:%M:%S} UTC, {report.nodes_online} edge nodes online, readings acknowledged"
            )
        self._bar.update(self._task, description=said, completed=progress.done, total=progress.total or None)
