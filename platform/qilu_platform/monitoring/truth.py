"""The truth beside the limits: faults that were played into a simulated unit, and alarms that saw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.storage import Point

from qilu_platform.monitoring import alarms


def faults(
    class_name: str, commands: Sequence[dict[str, Any]], points: Sequence[Point]
) -> list[dict[str, Any]]:
    """Faults that the unit accepted, the newest first, as the API shows them. `commands` are the unit's, in
    any order, `points` its alarms."""
    accepted = [
        each for each in commands if each["state"] == "accepted" and each["holds_from_ms"] is not None
    ]
    resets = sorted(each["holds_from_ms"] for each in accepted if each["command"]["command"] == "reset")
    known = {fault.name: fault for fault in REGISTRABLE[class_name].faults}
    found = []
    for each in accepted:
        command, from_ms = each["command"], each["holds_from_ms"]
        if command["command"] != "fault" or command.get("name") not in known:
            continue
        ends = [ms for ms in resets if ms >= from_ms][:1]
        if (duration_s := command.get("duration_s")) is not None:
            ends.append(from_ms + round(duration_s * 1000))
        until_ms = min(ends, default=None)
        signals = [sign.signal for sign in known[command["name"]].shows]
        found.append(
            {
                "command": each["id"],
                "fault": command["name"],
                "severity": command.get("value", 1.0),
                "onset_s": command.get("onset_s"),
                "from_ms": from_ms,
                "until_ms": until_ms,
                "shows": signals,
                "alarms": [
                    _seen(point, signal, from_ms)
                    for signal in signals
                    for point in _first(points, signal, from_ms, until_ms)
                ],
            }
        )
    return sorted(found, key=lambda each: -int(each["from_ms"]))


def _first(points: Sequence[Point], signal: str, from_ms: int, until_ms: int | None) -> list[Point]:
    """The first alarm of a signal while the fault lasts, if there is one."""
    mine = [
        point
        for point in points
        if alarms.tags_of(point)["signal"] == signal
        and from_ms <= point.ts_ms
        and (until_ms is None or point.ts_ms <= until_ms)
    ]
    return sorted(mine, key=lambda point: point.ts_ms)[:1]


def _seen(point: Point, signal: str, from_ms: int) -> dict[str, Any]:
    is_open = bool(point.fields.get("open"))
    duration_s = float(point.fields.get("duration_s", 0.0))
    return {
        "signal": signal,
        "since_ms": point.ts_ms,
        "after_s": (point.ts_ms - from_ms) / 1000,
        "ended_ms": None if is_open else point.ts_ms + round(duration_s * 1000),
        "limit": point.fields.get("limit"),
        "worst": point.fields.get("worst"),
    }
