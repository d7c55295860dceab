"""First readings: units of a batch that have not been reported as on cloud."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from qilu_contract.columns import Columns
from qilu_contract.storage import Point

from qilu_gateway.admit.units import Tags, Units


def firsts_of(units: Units, points: Sequence[Point], columns: Sequence[Columns]) -> dict[str, int]:
    """Units without a reported reading, with the time of their first reading here (ms)."""
    firsts: dict[str, int] = {}
    for each in columns:
        new = ~units.on_cloud[each.rows]
        if not new.any():
            continue
        rows, inverse = np.unique(each.rows[new], return_inverse=True)
        first_ms = np.full(len(rows), np.iinfo(np.int64).max)
        np.minimum.at(first_ms, inverse, each.ts_ms[new])
        for unit, ts_ms in zip(units.ids(rows), first_ms.tolist(), strict=True):
            firsts[unit] = min(ts_ms, firsts.get(unit, ts_ms))
    for point in points:
        unit = Tags(*point.tags).unit
        number = units.numbers.get(unit)
        if number is not None and not units.on_cloud[number]:
            firsts[unit] = min(point.ts_ms, firsts.get(unit, point.ts_ms))
    return firsts
