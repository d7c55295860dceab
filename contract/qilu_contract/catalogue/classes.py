"""The equipment catalogue: classes, their signals, faults and set points, as data (`data/classes.csv`,
`data/signals.csv`, `data/faults.csv`, `data/set_points.csv`), and the user's own classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from qilu_contract.catalogue.equipment import DIRECTIONS, EquipmentClass, Fault, SetPoint, Sign, Signal
from qilu_contract.catalogue.tables import read_table

if TYPE_CHECKING:
    from qilu_contract.catalogue.own_classes import OwnClass

__all__ = ["CATALOGUE", "EVENTS", "OWN", "EquipmentClass", "Fault", "SetPoint", "Signal"]

Row = dict[str, str]
T = TypeVar("T")

EVENTS = ("", "tap", "part", "cycle", "stop")


def _sign(row: Row, text: str) -> Sign:
    for direction in DIRECTIONS:
        if text.endswith(direction):
            return Sign(text.removesuffix(direction), direction)
    raise ValueError(f"faults.csv: {row['fault']}: {text!r} does not end with one of {' '.join(DIRECTIONS)}")


def _signal(row: Row) -> Signal:
    kind, event = row["type"], row["per_event"]
    if kind not in ("float", "int", "bool"):
        raise ValueError(f"signals.csv: {row['signal']}: type {kind!r} is not float, int or bool")
    if event not in EVENTS:
        raise ValueError(f"signals.csv: {row['signal']}: event {event!r} is not one of {EVENTS}")
    return Signal(
        name=row["signal"],
        unit=row["unit"],
        type=kind,  # type: ignore[arg-type]  # narrowed above; mypy does not follow `not in`
        resolution=float(row["resolution"]),
        nominal=float(row["nominal"]),
        low=float(row["low"]),
        high=float(row["high"]),
        interval_s=int(row["interval_s"]),
        per_event=event,
        mark=row["mark"],
        source=row["source"],
    )


def _fault(row: Row) -> Fault:
    return Fault(
        name=row["fault"],
        title=row["title"],
        signature=row["signature"],
        shows=tuple(_sign(row, text) for text in row["shows"].split()),
        source=row["source"],
        mark=row["mark"],
        mean_hours_between=float(row["mean_hours_between"]),
        develop_h=float(row["develop_h"]),
        repair_h=float(row["repair_h"]),
        season=row["season"],
    )


def _set_point(row: Row) -> SetPoint:
    return SetPoint(
        name=row["set_point"],
        unit=row["unit"],
        low=float(row["low"]),
        high=float(row["high"]),
        title=row["title"],
        mark=row["mark"],
        source=row["source"],
    )


def _by_class(table: str, make: Callable[[Row], T]) -> dict[str, tuple[T, ...]]:
    found: dict[str, list[T]] = {}
    for row in read_table(table):
        found.setdefault(row["class"], []).append(make(row))
    return {name: tuple(items) for name, items in found.items()}


def _load() -> dict[str, EquipmentClass]:
    signals = _by_class("signals.csv", _signal)
    faults = _by_class("faults.csv", _fault)
    set_points = _by_class("set_points.csv", _set_point)
    return {
        name: EquipmentClass(
            name,
            row["title"],
            row["title_zh"],
            signals[name],
            faults[name],
            set_points[name],
            row["stoppable"] == "yes",
        )
        for row in read_table("classes.csv")
        for name in [row["class"]]
    }


def _own() -> dict[str, OwnClass]:
    sources = os.environ.get("QILU_CLASSES", "")
    if not sources:
        return {}
    from qilu_contract.catalogue.own_classes import load_own_classes  # with PyYAML, that few need

    return {own.equipment.name: own for own in load_own_classes(sources, _BUILT_IN)}


_BUILT_IN = _load()

OWN: dict[str, OwnClass] = _own()
"""The user's own classes: those that the environment names when this module is first imported. Everything
that is derived from the catalogue (measurements, key signals, dashboards) is made at import, so that no part
ever sees a class that another does not."""

CATALOGUE: dict[str, EquipmentClass] = _BUILT_IN | {name: own.equipment for name, own in OWN.items()}
