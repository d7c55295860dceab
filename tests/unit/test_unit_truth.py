"""Faults that were played into a unit, beside the alarms that saw them."""

from __future__ import annotations

from typing import Any

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.storage import Point
from qilu_platform.monitoring.truth import faults

FAULT = CATALOGUE["pump"].faults[0]
SIGNAL = FAULT.shows[0].signal
START_MS = 1_767_225_600_000


def command(id_: str, at_s: float, state: str = "accepted", **more: Any) -> dict[str, Any]:
    from_ms = START_MS + round(at_s * 1000) if state == "accepted" else None
    return {"id": id_, "state": state, "holds_from_ms": from_ms, "command": more}


def alarm(at_s: float, signal: str = SIGNAL, **more: float) -> Point:
    tags = ("370000", "370200", "370202", "C34", "works", "pump-1", "pump", signal)
    return Point(
        "alarm", tags, START_MS + round(at_s * 1000), {"open": 1, "limit": 7.1, "worst": 9.0, **more}
    )


def test_a_fault_has_the_first_alarm_of_each_of_its_signals_while_it_lasts() -> None:
    commands = [
        command("reset", 100, command="reset"),
        command("seen", 10, command="fault", name=FAULT.name, value=0.9, onset_s=5.0, duration_s=3600.0),
        command("missed", 200, command="fault", name=FAULT.name, duration_s=60.0),
        command("refused", 0, "refused", command="fault", name=FAULT.name),
        command("other", 0, command="set_point", name="speed", value=1.0),
    ]
    points = [alarm(5), alarm(40), alarm(22, open=0, duration_s=8.0), alarm(30, "no_such"), alarm(300)]
    missed, seen = faults("pump", commands, points)
    assert (missed["command"], missed["alarms"], missed["severity"]) == ("missed", [], 1.0)
    assert missed["until_ms"] == START_MS + 260_000
    # The repair came before the fault would have ended by itself.
    assert (seen["from_ms"], seen["until_ms"]) == (START_MS + 10_000, START_MS + 100_000)
    assert SIGNAL in seen["shows"]
    (found,) = seen["alarms"]
    assert (found["signal"], found["after_s"]) == (SIGNAL, 12.0)
    assert found["ended_ms"] == START_MS + 30_000
