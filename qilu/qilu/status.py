"""The one live status line of `qilu up`."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Status:
    """A moment of the stack, in units, readings and milliseconds."""

    registered: int = 0
    on_cloud: int = 0
    active: int = 0
    accepted_per_s: float = 0.0
    stored: int = 0
    dead_lettered: int = 0
    lag_ms: float = 0.0
    trouble: str = ""

    def line(self) -> Text:
        """One line: what does not fit a narrow terminal is cut at its end, never wrapped."""
        figures = (
            ("units", f"{self.registered:,}", "bold"),
            ("on cloud", f"{self.on_cloud:,}", "bold green"),
            ("active", f"{self.active:,}", "bold"),
            ("·", f"{self.accepted_per_s:,.0f}/s", "bold"),
            ("stored", f"{self.stored:,}", "bold"),
            ("dead", f"{self.dead_lettered:,}", "bold red" if self.dead_lettered else "bold"),
            ("lag", f"{self.lag_ms / 1000:.1f} s", "bold"),
        )
        text = Text(
            self.trouble + ("  " if self.trouble else ""), "yellow", no_wrap=True, overflow="ellipsis"
        )
        for label, figure, style in figures:
            text.append(f"{label} ", "dim").append(f"{figure} ", style)
        return text


class StatusLine:
    """Redraws one line on a terminal; elsewhere prints it now and then, so that logs stay readable."""

    _PLAIN_EVERY = 10

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )
        self._shown = 0

    def __enter__(self) -> StatusLine:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self, status: Status) -> None:
        """Call once a second."""
        if self._live is not None:
            self._live.update(status.line(), refresh=True)
        elif self._shown % self._PLAIN_EVERY == 0:
            self._console.print(status.line().plain, soft_wrap=True)
        self._shown += 1
