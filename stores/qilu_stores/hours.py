"""Hourly rows of roll-ups, in separate measurements (`fleet_hourly` beside `fleet`), so that a graph of a
month does not read a month of minutes.

A writer without the earlier state, for example after a crash, begins a new row in the same hour, and both
stay: sums and counts add up, and for other fields the row that began last counts. So readings of a closed
minute that are redelivered after a crash are in the hour twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from qilu_contract.readings import Value
from qilu_contract.storage import HOURLY, MEASUREMENTS, Fold, Point
from qilu_contract.wire.clock import wall_ms

SECOND_MS, HOUR_MS = 1_000, 3_600_000
KEPT = 2
"""Maximum number of open hours, the most recent ones; points of another hour begin a new row."""

_Series = tuple[str, tuple[str, ...]]
"""Measurement and tags."""


class _Row(msgspec.Struct):
    ts_ms: int
    points: int
    fields: dict[str, Value]


class Hours:
    """Hourly rows of one writer. `shared` is for writers that all write the same points, which must not add
    up: their rows replace each other."""

    def __init__(self, *, shared: bool = False) -> None:
        self._shared = shared
        self._hours: dict[int, dict[_Series, _Row]] = {}
        """By hours since 1970, in the order in which they were folded last."""
        self._apart_ms = wall_ms() % SECOND_MS
        """So that the row of another writer that began with the same point stays."""

    def fold(self, points: Iterable[Point], *, remember: bool = True) -> list[Point]:
        """The rows of the points' hours, with these points in them: each replaces the row returned for it
        before. Points that are not remembered are missing from later results."""
        changed: dict[tuple[int, _Series], _Row] = {}
        for point in sorted(points, key=lambda point: point.ts_ms):
            hour, series = point.ts_ms // HOUR_MS, (point.measurement + HOURLY, point.tags)
            row = changed.get((hour, series))
            if row is None:
                rows = self._of(hour)
                known = rows.get(series)
                if known is None:
                    known = rows[series] = _Row(self._begun_ms(point), 0, {})
                row = changed[hour, series] = _Row(known.ts_ms, known.points, dict(known.fields))
            _add(row, point, MEASUREMENTS[point.measurement].hourly or {})
        found = []
        for (hour, series), row in changed.items():
            found.append(Point(*series, row.ts_ms, row.fields))  # changed no more: the next fold copies
            if remember and hour in self._hours:
                self._hours[hour][series] = row
        return found

    def _of(self, hour: int) -> dict[_Series, _Row]:
        rows = self._hours[hour] = self._hours.pop(hour, {})
        if len(self._hours) > KEPT:
            del self._hours[next(iter(self._hours))]
        return rows

    def _begun_ms(self, point: Point) -> int:
        if self._shared:
            return point.ts_ms // HOUR_MS * HOUR_MS
        return point.ts_ms // SECOND_MS * SECOND_MS + self._apart_ms

    def dump(self) -> bytes:
        """Serialize the state, so that the next start continues the same rows."""
        hours = [(hour, list(rows.items())) for hour, rows in self._hours.items()]
        return msgspec.msgpack.encode((self._apart_ms, hours))

    def load(self, body: bytes) -> None:
        """Restore the state of `dump`."""
        kept = tuple[int, list[tuple[int, list[tuple[_Series, _Row]]]]]
        self._apart_ms, hours = msgspec.msgpack.decode(body, type=kept)
        self._hours = {hour: dict(rows) for hour, rows in hours}


def _add(row: _Row, point: Point, folds: Mapping[str, Fold]) -> None:
    row.points += 1
    fields = row.fields
    for name, value in point.fields.items():
        if name not in fields:
            fields[name] = value
            continue
        fold = folds.get(name)
        if fold == "sum":  # of most fields
            fields[name] += value
        else:
            fields[name] = _folded(fold, fields[name], value, row.points)


def _folded(fold: Fold | None, before: Value, value: Value, points: int) -> Value:
    if fold == "max":
        return max(before, value)
    if fold == "min":
        return min(before, value)
    if fold == "mean":
        return before + (value - before) / points
    return value
