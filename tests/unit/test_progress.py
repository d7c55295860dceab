"""Progress on a terminal: bars, and a note when a run is slower than requested."""

from __future__ import annotations

from io import StringIO

import pytest
from qilu.progress import RunLine, file_bar, slower, unit_bar
from qilu_devices.run.config import RunProgress, RunReport
from rich.console import Console


def screen(*, terminal: bool = True) -> tuple[Console, StringIO]:
    out = StringIO()
    return Console(file=out, force_terminal=terminal, width=200, color_system=None), out


def report(second: int, slow_by: float) -> RunProgress:
    made = RunReport(
        units=20, enterprises=2, readings_made=100, readings_acked=90, pending=10, dropped=0, births=20,
        nodes_online=min(second, 2), start_ms=0, until_ms=1000 * second, seconds=float(second), speed=6.0,
        late_s=slow_by * second,
    )  # fmt: skip
    return RunProgress(None, 90, 100, made)


@pytest.mark.parametrize(
    ("speed", "wanted", "said"),
    [
        (2.04, 6.0, "running at 2x instead of 6x"),
        (0.25, 1.0, "running at 0.25x instead of 1x"),
        (5.9, 6.0, ""),
        (3.0, None, ""),
    ],
)
def test_a_run_that_is_slower_than_wanted_says_by_how_much(
    speed: float, wanted: float | None, said: str
) -> None:
    assert slower(speed, wanted) == said


def test_the_line_of_a_run_tells_of_its_registration_its_nodes_and_its_speed() -> None:
    console, out = screen()
    with RunLine(console) as line:
        line.show(RunProgress("units", 5, 20, None))
        line._bar.refresh()
        for second in range(12):
            line.show(report(second, 2 / 3))
            line._bar.refresh()
    said = out.getvalue()
    assert "registering units" in said
    assert "waiting for broker and gateway" in said
    assert (
        "2 of 2 edge nodes online, running at 2x instead of 6x: the gateway takes no more, readings" in said
    )
    console, out = screen()
    with RunLine(console) as line:
        for second in range(12):
            line.show(report(second, 0.0))
            line._bar.refresh()
    assert "2 of 2 edge nodes online, readings acknowledged" in out.getvalue()


def test_bars_are_for_terminals_only() -> None:
    for terminal in (True, False):
        console, out = screen(terminal=terminal)
        with unit_bar(console, "verifying") as shown:
            shown(30, 40)
        with file_bar(console, "sending", 2_000_000) as told:
            told(1_000_000)
        said = out.getvalue()
        assert ("verifying" in said, "30/40" in said, "1.0/2.0 MB" in said) == (terminal,) * 3
