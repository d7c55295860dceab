"""Comparison of the expected points of a run with a store, by column."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.columns import Columns, Ints
from qilu_contract.storage import BORN, UNIT_TAGS, Point
from qilu_contract.store import Chunk

Mask = NDArray[np.bool_]
_CLASSES = tuple(CATALOGUE)
_COUNTY, _UNIT = UNIT_TAGS.index("county"), UNIT_TAGS.index("unit")


class Found(NamedTuple):
    """Points found in a store, all of one measurement."""

    units: list[str]
    counties: list[str]
    ts_ms: Ints
    places: Ints
    """For each, the index of the expected point with its unit and time; -1: none."""
    again: Mask
    """Mask of points that are not the first for their unit and time."""


class Expected:
    """Expected points, unique by unit and time, with the points found for each."""

    def __init__(self, columns: Sequence[Columns]) -> None:
        self._columns = columns
        self._starts = [0, *accumulate(map(len, columns))]
        units = [unit for each in columns for unit in each.series.tag("unit", each.rows).tolist()]
        self._numbers = dict(zip(units, range(len(units)), strict=True))
        if len(self._numbers) == len(units):  # as in a run of the programme: one point each
            numbers = np.arange(len(units), dtype=np.int64)
        else:
            numbers = np.fromiter(map(self._numbers.__getitem__, units), np.int64, len(units))
        self._ts_ms: Ints = np.zeros(0, dtype=np.int64)
        if columns:
            self._ts_ms = np.concatenate([each.ts_ms for each in columns])
        self._first_ms, last_ms = (int(self._ts_ms.min()), int(self._ts_ms.max())) if units else (0, 0)
        self._span_ms = last_ms - self._first_ms + 1
        keys = self._keys(numbers, self._ts_ms)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        self.found: Ints = np.zeros(len(units), dtype=np.int64)
        """Number of found points with its unit and time."""
        self.good: Mask = np.zeros(len(units), dtype=np.bool_)
        """Whether one of them equals the expected point."""

    def __len__(self) -> int:
        return len(self.found)

    def tags(self, name: str) -> NDArray[Any]:
        """Of each point."""
        parts = [each.series.tag(name, each.rows) for each in self._columns]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=object)

    def in_order_of_time(self, which: Mask) -> list[int]:
        """Indices in time order; for equal times in the order of classes."""
        classes = np.repeat(
            [_CLASSES.index(each.measurement) for each in self._columns], list(map(len, self._columns))
        )
        some = np.flatnonzero(which)
        found: list[int] = some[np.lexsort((classes[some], self._ts_ms[some]))].tolist()
        return found

    def by_place(self, places: Ints) -> Counter[tuple[str, str]]:
        """Counts of these by class and county."""
        counts: Counter[tuple[str, str]] = Counter()
        for columns, (start, end) in zip(self._columns, pairwise(self._starts), strict=True):
            some = places[(places >= start) & (places < end)] - start
            for county, count in Counter(columns.series.tag("county", columns.rows[some]).tolist()).items():
                counts[columns.measurement, county] += count
        return counts

    def find(self, chunk: Chunk, *, marks: bool) -> Iterator[Found]:
        """Match and count points of a store. `marks`: ignore differences in the mark of a birth."""
        for columns in chunk.columns:
            units, counties = (columns.series.tag(tag, columns.rows).tolist() for tag in ("unit", "county"))
            places = self._places(units, columns.ts_ms)
            self._compare(places, columns, marks)
            yield Found(units, counties, columns.ts_ms, places, self._count(places))
        if chunk.points:
            units, counties = ([point.tags[tag] for point in chunk.points] for tag in (_UNIT, _COUNTY))
            ts_ms = np.array([point.ts_ms for point in chunk.points], dtype=np.int64)
            places = self._places(units, ts_ms)
            for place, point in zip(places.tolist(), chunk.points, strict=True):
                if place >= 0:
                    self.good[place] |= self._is(place, point, marks)
            yield Found(units, counties, ts_ms, places, self._count(places))

    def _keys(self, rows: Ints, ts_ms: Ints) -> Ints:
        return rows * self._span_ms + (ts_ms - self._first_ms)

    def _places(self, units: Sequence[str], ts_ms: Ints) -> Ints:
        numbers = np.fromiter(map(self._numbers.get, units, repeat(-1)), np.int64, len(units))
        since_ms = ts_ms - self._first_ms
        within = (numbers >= 0) & (since_ms >= 0) & (since_ms < self._span_ms)
        places = np.full(len(units), -1, dtype=np.int64)
        if not len(self) or not within.any():
            return places
        keys = self._keys(numbers, ts_ms)
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self) - 1)
        hit = within & (self._sorted[at] == keys)
        places[hit] = self._order[at[hit]]
        return places

    def _count(self, places: Ints) -> Mask:
        """Count matches; returns the mask of those that are not the first for their index."""
        again = np.zeros(len(places), dtype=np.bool_)
        hit = np.flatnonzero(places >= 0)
        number = np.bincount(places[hit], minlength=len(self))
        if (number > 1).any():
            _, firsts = np.unique(places[hit], return_index=True)
            again[hit] = True
            again[hit[firsts]] = False
        again[hit] |= self.found[places[hit]] > 0
        self.found += number
        return again

    def _compare(self, places: Ints, found: Columns, marks: bool) -> None:
        for columns, (start, end) in zip(self._columns, pairwise(self._starts), strict=True):
            if columns.measurement != found.measurement:
                continue
            some = np.flatnonzero((places >= start) & (places < end))
            if not len(some):
                continue
            mine, theirs = columns.take(places[some] - start), found.take(some)
            alike = _values_alike(mine, theirs, marks)
            for tag in ("city", "county", "industry", "enterprise"):
                alike &= mine.series.tag(tag, mine.rows) == theirs.series.tag(tag, theirs.rows)
            self.good[places[some[alike]]] = True

    def _is(self, place: int, point: Point, marks: bool) -> bool:
        group = bisect_right(self._starts, place) - 1
        columns = self._columns[group]
        [expected] = columns.take(np.array([place - self._starts[group]])).points()
        fields = dict(point.fields)
        if marks and BORN not in expected.fields:
            fields.pop(BORN, None)
        return expected == point._replace(fields=fields)


def _values_alike(mine: Columns, theirs: Columns, marks: bool) -> Mask:
    """Mask of points with equal fields and values."""
    alike = np.ones(len(mine), dtype=np.bool_)
    for name in {*mine.names, *theirs.names}:
        if name == BORN and marks and name not in mine.names:
            continue
        ours, other = mine.column(name), theirs.column(name)
        alike &= (ours == other) | (np.isnan(ours) & np.isnan(other))
    return alike
