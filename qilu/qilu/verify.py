"""Verification of a run: recomputes the expected readings from the run's manifest, and compares them with the
store, point by point and value by value.

Both sides are read in the same time windows, each class once per window, so memory stays bounded however long
the run was.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain

import numpy as np
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import city_of
from qilu_contract.columns import Columns, Series, of_points
from qilu_contract.errors import Reason
from qilu_contract.readings import Reading, Value
from qilu_contract.storage import Point
from qilu_contract.store import PlatformStore
from qilu_devices.fleet import Unit
from qilu_devices.run.manifest import Manifest

from qilu.comparison import Expected, Found, Mask

WINDOW_READINGS = 100_000
"""Maximum number of readings per window, about half a kilobyte each; exceeded only if a single moment has
more."""


@dataclass(slots=True)
class Counts:
    """Readings. `stored = expected - lost + duplicated + unexpected` always holds.

    - expected: made and acknowledged by the broker;
    - stored: points of the run's units and time that are expected, or should not be there;
    - lost: expected, and not stored under any tags;
    - duplicated: points in addition to another of the same unit and time under other tags;
    - altered: stored, but nowhere with the values and tags that were made;
    - unexpected: points of the run's units at times at which nothing was made;
    - unacknowledged: stored although the broker's acknowledgement never reached the edge node, which is
      nobody's fault; apart from all the others.
    """

    expected: int = 0
    stored: int = 0
    lost: int = 0
    duplicated: int = 0
    altered: int = 0
    unexpected: int = 0
    unacknowledged: int = 0

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.altered or self.unexpected)

    def add(self, other: Counts) -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(slots=True)
class Verdict:
    """Result of a verification. `by_place` counts by class and county."""

    by_place: dict[tuple[str, str], Counts] = field(default_factory=lambda: defaultdict(Counts))
    dropped: dict[str, int] = field(default_factory=dict)
    """Readings that edge nodes dropped at their own bound: which ones is not known, so as many missing ones
    of such a node are not called lost.
    """
    others: int = 0
    """Points in the run's time of units that the run does not have."""
    refused: Counter[Reason] = field(default_factory=Counter)
    """Readings that transport faults made unfit for the store: they must be dead letters of the gateway."""

    @property
    def total(self) -> Counts:
        return _sum(self.by_place.values())

    def count(self, name: str, counted: Mapping[tuple[str, str], int]) -> None:
        """Add to one of the counts, by place."""
        for place, count in counted.items():
            counts = self.by_place[place]
            setattr(counts, name, getattr(counts, name) + count)

    def close(self, expected: Expected, lost: Mask) -> None:
        """Count what was expected, once all that the store holds of it was found. `lost`: what was not found
        and is nobody's drop."""
        found = expected.found > 0
        self.count("expected", expected.by_place(np.flatnonzero(lost | found)))
        self.count("lost", expected.by_place(np.flatnonzero(lost)))
        self.count("altered", expected.by_place(np.flatnonzero(found & ~expected.good)))

    def by(self, place: int) -> dict[str, Counts]:
        """Counts by class (0) or county (1)."""
        grouped: dict[str, list[Counts]] = defaultdict(list)
        for key, counts in sorted(self.by_place.items()):
            grouped[key[place]].append(counts)
        return {name: _sum(counts) for name, counts in grouped.items()}

    def add(self, other: Verdict) -> None:
        """Add the verdict about another part of the run."""
        for place, counts in other.by_place.items():
            self.by_place[place].add(counts)
        self.dropped |= other.dropped
        self.others += other.others
        self.refused += other.refused

    def as_dict(self) -> dict[str, object]:
        return {
            **asdict(self.total),
            "dropped_at_the_edge": sum(self.dropped.values()),
            "nodes_with_drops": sorted(self.dropped),
            "others": self.others,
            "dead_letters": {str(reason): count for reason, count in sorted(self.refused.items())},
            "by_class": {name: asdict(counts) for name, counts in self.by(0).items()},
            "by_county": {name: asdict(counts) for name, counts in self.by(1).items()},
        }


def _sum(parts: Iterable[Counts]) -> Counts:
    total = Counts()
    for counts in parts:
        total.add(counts)
    return total


async def verify(
    manifest: Manifest,
    store: PlatformStore,
    window_readings: int = WINDOW_READINGS,
    counties: Container[str] | None = None,
    *,
    shared: bool = False,
) -> Verdict:
    """Reads the store once. `counties`: those to verify; readings of the run's other units should not be in
    the store, unless it is `shared` with other cells. Raises ConfigError for a manifest that was changed,
    StoreError when the store does not answer.
    """
    return await _Verification(manifest, store, window_readings, counties, shared).run()


_Window = dict[tuple[str, int], Mapping[str, Value]]
"""Expected values by unit and time, in time order."""


class _Verification:
    def __init__(
        self,
        manifest: Manifest,
        store: PlatformStore,
        window_readings: int,
        counties: Container[str] | None,
        shared: bool,
    ) -> None:
        self._counties, self._shared = counties, shared
        self._manifest, self._store, self._window_readings = manifest, store, window_readings
        self._units = {unit.id: unit for unit in manifest.fleet()}
        self._series, self._numbers = Series(), dict[str, int]()
        self._verdict = Verdict()
        self._verdict.dropped = {id_: node.dropped for id_, node in manifest.nodes.items() if node.dropped}
        # In an unfinished run, skewed clocks may have set timestamps earlier by this much.
        self._doubtful_ms = 0 if manifest.finished else manifest.beyond_ms
        self._forgiven = dict(self._verdict.dropped)

    async def run(self) -> Verdict:
        for start_ms, end_ms, window in self._windows():
            expected = Expected(self._columns(window))
            for class_name in CATALOGUE:
                async for chunk in self._store.scan(class_name, start_ms, end_ms):
                    for found in expected.find(chunk, marks=True):
                        self._judge(found, expected)
            self._close(expected)
        return self._verdict

    def _windows(self) -> Iterator[tuple[int, int, _Window]]:
        """Windows that follow each other without a gap, from the run's start to its end."""
        manifest = self._manifest
        start_ms = at_ms = manifest.start_ms - manifest.beyond_ms
        window: _Window = {}
        end_ms = manifest.until_ms + manifest.beyond_ms + 1
        last = Reading("", end_ms, {})  # so that the last window reaches the end
        for reading in chain(manifest.readings(self._verdict.refused, self._counties), [last]):
            full = len(window) >= self._window_readings and reading.ts_ms > at_ms
            if full or reading is last:
                yield start_ms, reading.ts_ms, window
                start_ms, window = reading.ts_ms, {}
            at_ms = reading.ts_ms
            window[reading.unit, reading.ts_ms] = reading.values

    def _columns(self, window: _Window) -> list[Columns]:
        points = []
        for (unit_id, ts_ms), values in window.items():
            unit = self._units[unit_id]
            points.append(Point(unit.class_name, _tags(unit), ts_ms, values))
        return of_points(points, self._series, self._numbers)

    def _judge(self, found: Found, expected: Expected) -> None:
        there = found.places >= 0
        self._verdict.count("stored", expected.by_place(found.places[there]))
        self._verdict.count("duplicated", expected.by_place(found.places[found.again]))
        ts_ms = found.ts_ms.tolist()
        for place in np.flatnonzero(~there).tolist():
            self._judge_stranger(found.units[place], ts_ms[place])

    def _judge_stranger(self, unit_id: str, ts_ms: int) -> None:
        """Count a point that was not expected."""
        manifest = self._manifest
        if not manifest.start_ms <= ts_ms <= manifest.until_ms:
            return  # where only readings of skewed clocks are looked for
        unit = self._units.get(unit_id)
        if unit is None:
            self._verdict.others += 1
            return
        counts = self._verdict.by_place[unit.class_name, unit.enterprise.county]
        if self._counties is not None and unit.enterprise.county not in self._counties:
            counts.stored += not self._shared
            counts.unexpected += not self._shared  # in the store of another cell
        elif ts_ms > manifest.nodes[unit.enterprise.id].acked_through_ms - self._doubtful_ms:
            counts.unacknowledged += 1
        else:
            counts.stored += 1
            counts.unexpected += 1

    def _close(self, expected: Expected) -> None:
        lost = expected.found == 0
        if self._forgiven and lost.any():
            lost &= ~self._dropped(expected, lost)
        self._verdict.close(expected, lost)

    def _dropped(self, expected: Expected, lost: Mask) -> Mask:
        """Mask of lost readings that count as dropped: the first ones, because the dropped ones are not known
        individually."""
        dropped = np.zeros(len(expected), dtype=np.bool_)
        enterprises = expected.tags("enterprise")
        for place in expected.in_order_of_time(lost):
            if self._forgiven.get(enterprises[place], 0):
                self._forgiven[enterprises[place]] -= 1
                dropped[place] = True
        return dropped


def _tags(unit: Unit) -> tuple[str, ...]:
    enterprise = unit.enterprise
    return (
        city_of(enterprise.county),
        enterprise.county,
        enterprise.industry,
        enterprise.id,
        unit.id,
    )
