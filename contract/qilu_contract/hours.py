"""Rows of roll-ups by the hour, beside those by the minute or oftener, so that a graph of a month does not
read a month of minutes.

Who does not know what was folded before, as after a crash, begins a row of its own in the same hour, and both
stand: sums and counts add up, and of what only stands the newest is asked."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from qilu_contract.clock import wall_ms
from qilu_contract.readings import Value
from qilu_contract.storage import COARSE, MEASUREMENTS, Fold, Point

SECOND_MS, HOUR_MS = 1_000, 3_600_000
KEPT = 2
"""Hours that are added to; what comes for an older one begins a row of its own."""


_Key = tuple[int, str, tuple[str, ...]]
"""Hour since 1970, measurement, tags."""


class _Row(msgspec.Struct):
    ts_ms: int
    points: int
    fields: dict[str, Value]


class Hours:
    """What one writer of points, whose hours come one after the other, has folded so far."""

    def __init__(self) -> None:
        self._rows: dict[_Key, _Row] = {}
        self._apart_ms = wall_ms() % SECOND_MS
        """So that the row of another writer that began with the same point stays."""

    def fold(self, points: Iterable[Point], *, remember: bool = True) -> list[Point]:
        """The rows of the points' hours, with these points in them: each to be written in place of what was
        returned for it before. What is not remembered is not in what is returned later."""
        changed: dict[_Key, _Row] = {}
        for point in sorted(points, key=lambda point: point.ts_ms):
            key = (point.ts_ms // HOUR_MS, point.measurement, (*point.tags[:-1], COARSE))
            row = changed.get(key)
            if row is None:
                known = self._rows.get(key)
                row = changed[key] = (
                    _Row(point.ts_ms // SECOND_MS * SECOND_MS + self._apart_ms, 0, {})
                    if known is None
                    else _Row(known.ts_ms, known.points, dict(known.fields))
                )
            _add(row, point)
        if remember:
            self._rows.update(changed)
            hours = sorted({hour for hour, _, _ in self._rows})
            if len(hours) > KEPT:
                self._rows = {key: row for key, row in self._rows.items() if key[0] >= hours[-KEPT]}
        return [
            Point(measurement, tags, row.ts_ms, dict(row.fields))
            for (_, measurement, tags), row in changed.items()
        ]

    def dump(self) -> bytes:
        """What a new start needs to go on with the same rows."""
        return msgspec.msgpack.encode((self._apart_ms, list(self._rows.items())))

    def load(self, body: bytes) -> None:
        """Go on where `dump` was."""
        self._apart_ms, rows = msgspec.msgpack.decode(body, type=tuple[int, list[tuple[_Key, _Row]]])
        self._rows = dict(rows)


def _add(row: _Row, point: Point) -> None:
    row.points += 1
    folds, fields = MEASUREMENTS[point.measurement].hourly, row.fields
    for name, value in point.fields.items():
        before = fields.get(name)
        fields[name] = (
            value if before is None else _folded(folds.get(name, "last"), before, value, row.points)
        )


def _folded(fold: Fold, before: Value, value: Value, points: int) -> Value:
    if fold == "sum":
        return before + value
    if fold == "max":
        return max(before, value)
    if fold == "min":
        return min(before, value)
    if fold == "mean":
        return before + (value - before) / points
    return value
