"""The equipment catalogue: classes, their signals, faults and set points, as data (`data/classes.csv`,
`data/signals.csv`, `data/faults.csv`, `data/set_points.csv`), and the user's own classes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qilu_contract.catalogue.equipment import WAYS, EquipmentClass, Fault, SetPoint, Sign, Signal
from qilu_contract.catalogue.tables import read_table

if TYPE_CHECKING:
    from qilu_contract.catalogue.own_classes import OwnClass

__all__ = ["CATALOGUE", "EVENTS", "OWN", "EquipmentClass", "Fault", "SetPoint", "Signal"]

EVENTS = ("", "tap", "part", "cycle", "stop")


def _sign(row: dict[str, str], text: str) -> Sign:
    for way in WAYS:
        if text.endswith(way):
            return Sign(text.removesuffix(way), way)
    raise ValueError(f"faults.csv: {row['fault']}: {text!r} does not end with one of {' '.join(WAYS)}")


def _load() -> dict[str, EquipmentClass]:
    signals: dict[str, list[Signal]] = {}
    for row in read_table("signals.csv"):
        kind = row["type"]
        if kind not in ("float", "int", "bool"):
            raise ValueError(f"signals.csv: {row['signal']}: type {kind!r} is not float, int or bool")
        if row["per_event"] not in EVENTS:
            raise ValueError(
                f"signals.csv: {row['signal']}: event {row['per_event']!r} is not one of {EVENTS}"
            )
        signals.setdefault(row["class"], []).append(
            Signal(
                name=row["signal"],
                unit=row["unit"],
                type=kind,  # type: ignore[arg-type]  # narrowed above; mypy does not follow `not in`
                resolution=float(row["resolution"]),
                nominal=float(row["nominal"]),
                low=float(row["low"]),
                high=float(row["high"]),
                interval_s=int(row["interval_s"]),
                per_event=row["per_event"],
                mark=row["mark"],
                source=row["source"],
            )
        )
    faults: dict[str, list[Fault]] = {}
    for row in read_table("faults.csv"):
        faults.setdefault(row["class"], []).append(
            Fault(
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
        )
    set_points: dict[str, list[SetPoint]] = {}
    for row in read_table("set_points.csv"):
        set_points.setdefault(row["class"], []).append(
            SetPoint(
                name=row["set_point"],
                unit=row["unit"],
                low=float(row["low"]),
                high=float(row["high"]),
                title=row["title"],
                mark=row["mark"],
                source=row["source"],
            )
        )
    return {
        row["class"]: EquipmentClass(
            row["class"],
            row["title"],
            row["title_zh"],
            tuple(signals[row["class"]]),
            tuple(faults[row["class"]]),
            tuple(set_points[row["class"]]),
            row["stoppable"] == "yes",
        )
        for row in read_table("classes.csv")
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
