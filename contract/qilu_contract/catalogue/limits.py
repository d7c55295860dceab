"""Limits of signals, as data (`data/limits.csv`): emission limits, vibration zones, temperatures.

A catalogue signal's `low` and `high` are physical bounds of what can be measured; a limit is the bound of
normal operation. Rows of a class or a signal that the catalogue does not have are left out, so that the table
may name equipment before the catalogue does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.tables import read_table

Level = Literal["note", "warning", "alarm"]
Kind = Literal["above", "below"]


@dataclass(frozen=True, slots=True)
class Limit:
    """`kind` says on which side the breach is. Only the level `alarm` raises alarms; `note` and `warning` are
    the boundaries before it, which charts show."""

    class_name: str
    signal: str
    level: Level
    kind: Kind
    limit: float
    back: float
    """An alarm ends when the value is inside the limit by as much (assumed), so that noise at the limit does
    not raise it again and again; 0 for the other levels."""
    delay_s: float
    """How long a value must be past the limit before an alarm begins, and inside it before the alarm ends
    (assumed): what only touches the limit, or comes back for a moment, is neither."""
    while_above_0: str
    """The limit applies only while this signal is above 0, because a stopped unit may be cold. Empty: it
    always applies."""
    title: str
    title_zh: str
    mark: str
    source: str

    def breached(self, value: float) -> bool:
        return value > self.limit if self.kind == "above" else value < self.limit

    def kept(self, value: float) -> bool:
        """Whether an alarm ends."""
        inside = self.limit - value if self.kind == "above" else value - self.limit
        return inside >= self.back


def _load() -> dict[str, tuple[Limit, ...]]:
    found: dict[str, list[Limit]] = {name: [] for name in CATALOGUE}
    for row in read_table("limits.csv"):
        level, kind = row["level"], row["kind"]
        if level not in get_args(Level) or kind not in get_args(Kind):
            raise ValueError(f"limits.csv: {row['class']} {row['signal']}: {level!r} or {kind!r} is unknown")
        class_ = CATALOGUE.get(row["class"])
        if class_ is None or row["signal"] not in {signal.name for signal in class_.signals}:
            continue
        if row["while"] and row["while"] not in {signal.name for signal in class_.signals}:
            raise ValueError(f"limits.csv: {class_.name} has no signal {row['while']!r}")
        found[class_.name].append(
            Limit(
                class_name=class_.name,
                signal=row["signal"],
                level=level,  # type: ignore[arg-type]  # narrowed above; mypy does not follow `not in`
                kind=kind,  # type: ignore[arg-type]
                limit=float(row["limit"]),
                back=float(row["back"] or 0),
                delay_s=float(row["delay_s"] or 0),
                while_above_0=row["while"],
                title=row["title"],
                title_zh=row["title_zh"],
                mark=row["mark"],
                source=row["source"],
            )
        )
    return {name: tuple(limits) for name, limits in found.items()}


LIMITS: dict[str, tuple[Limit, ...]] = _load()
"""By class; every class of the catalogue is there, most with nothing."""


def alarm_limits(class_name: str) -> dict[str, Limit]:
    """The limit of level `alarm` of each signal that has one."""
    return {limit.signal: limit for limit in LIMITS.get(class_name, ()) if limit.level == "alarm"}
