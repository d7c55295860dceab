"""Verification of a run: what must be stored is computed again from the run's manifest, and compared with
what the store holds, point by point and value by value.

Both sides are gone through in the same windows of time, each class once a window, so memory stays bounded
however long the run was.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain

from qilu_contract.catalogue import CATALOGUE
from qilu_contract.errors import Reason
from qilu_contract.places import city_of
from qilu_contract.readings import Reading, Value
from qilu_contract.storage import BORN, Point
from qilu_contract.stores import Store
from qilu_devices.fleet import Unit
from qilu_devices.manifest import Manifest

WINDOW_READINGS = 100_000
"""Readings of one window, about half a kilobyte each; more where a single moment has more."""


@dataclass(slots=True)
class Counts:
    """Readings. `stored = expected - lost + duplicated + unexpected` always holds.

    - expected: made and acknowledged by the broker;
    - stored: points of the run's units and time that are expected, or should not be there;
    - lost: expected, and not stored under any tags;
    - duplicated: points that stand beside another of the same unit and time under other tags;
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
    """What came of a verification. `by_place` counts by class and county."""

    by_place: dict[tuple[str, str], Counts] = field(default_factory=lambda: defaultdict(Counts))
    dropped: dict[str, int] = field(default_factory=dict)
    """Readings that edge nodes dropped at their own bound: which ones is not known, so as many missing ones
    of such a node are not called lost.
    """
    others: int = 0
    """Points in the run's time of units that the run does not have."""
    refused: Counter[Reason] = field(default_factory=Counter)
    """What transport faults made unfit for the store: so many must be dead letters of the gateway."""

    @property
    def total(self) -> Counts:
        return _sum(self.by_place.values())

    def by(self, place: int) -> dict[str, Counts]:
        """Counts by class (0) or county (1)."""
        grouped: dict[str, list[Counts]] = defaultdict(list)
        for key, counts in sorted(self.by_place.items()):
            grouped[key[place]].append(counts)
        return {name: _sum(counts) for name, counts in grouped.items()}

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


@dataclass(slots=True)
class _Expected:
    """One reading that must be stored; `points` that were found for it, and whether one is as it was made."""

    values: Mapping[str, Value]
    points: int = 0
    good: bool = False


_Window = dict[tuple[str, int], _Expected]


async def verify(manifest: Manifest, store: Store, window_readings: int = WINDOW_READINGS) -> Verdict:
    """Reads the store once. Raises ConfigError for a manifest that was changed, StoreError when the store
    does not answer.
    """
    return await _Verification(manifest, store, window_readings).run()


class _Verification:
    def __init__(self, manifest: Manifest, store: Store, window_readings: int) -> None:
        self._manifest, self._store, self._window_readings = manifest, store, window_readings
        self._units = {unit.id: unit for unit in manifest.fleet()}
        self._verdict = Verdict()
        self._verdict.dropped = {id_: node.dropped for id_, node in manifest.nodes.items() if node.dropped}
        # Of a run that did not end, skewed clocks may have said so much less than when it was.
        self._doubtful_ms = 0 if manifest.finished else manifest.beyond_ms
        self._forgiven = dict(self._verdict.dropped)

    async def run(self) -> Verdict:
        for start_ms, end_ms, window in self._windows():
            for class_name in CATALOGUE:
                async for points in self._store.scan(class_name, start_ms, end_ms):
                    for point in points:
                        self._judge(point, window)
            self._close(window)
        return self._verdict

    def _windows(self) -> Iterator[tuple[int, int, _Window]]:
        """Windows that follow each other without a gap, from the run's start to its end."""
        manifest = self._manifest
        start_ms = at_ms = manifest.start_ms - manifest.beyond_ms
        window: _Window = {}
        end_ms = manifest.until_ms + manifest.beyond_ms + 1
        last = Reading("", end_ms, {})  # so that the last window reaches the end
        for reading in chain(manifest.readings(self._verdict.refused), [last]):
            full = len(window) >= self._window_readings and reading.ts_ms > at_ms
            if full or reading is last:
                yield start_ms, reading.ts_ms, window
                start_ms, window = reading.ts_ms, {}
            at_ms = reading.ts_ms
            window[reading.unit, reading.ts_ms] = _Expected(reading.values)

    def _judge(self, point: Point, window: _Window) -> None:
        expected = window.get((point.tags[-1], point.ts_ms))
        manifest = self._manifest
        if expected is None and not manifest.start_ms <= point.ts_ms <= manifest.until_ms:
            return  # where only readings of skewed clocks are looked for
        unit = self._units.get(point.tags[-1])
        if unit is None:
            self._verdict.others += 1
            return
        counts = self._counts(unit)
        if expected is not None:
            counts.stored += 1
            counts.duplicated += expected.points > 0
            expected.points += 1
            expected.good |= (
                point.measurement == unit.class_name
                and point.tags == _tags(unit)
                and (point.fields == expected.values or _signals(point) == expected.values)
            )
        elif point.ts_ms > manifest.nodes[unit.enterprise.id].acked_through_ms - self._doubtful_ms:
            counts.unacknowledged += 1
        else:
            counts.stored += 1
            counts.unexpected += 1

    def _close(self, window: _Window) -> None:
        for (unit_id, _), expected in window.items():
            unit = self._units[unit_id]
            if not expected.points and self._forgiven.get(unit.enterprise.id, 0):
                self._forgiven[unit.enterprise.id] -= 1  # dropped, as far as anybody can know
                continue
            counts = self._counts(unit)
            counts.expected += 1
            counts.lost += not expected.points
            counts.altered += bool(expected.points) and not expected.good

    def _counts(self, unit: Unit) -> Counts:
        return self._verdict.by_place[unit.class_name, unit.enterprise.county]


def _signals(point: Point) -> dict[str, Value]:
    """Its fields, but for the mark of a birth: a rebirth comes when somebody asks for one."""
    return {name: value for name, value in point.fields.items() if name != BORN}


def _tags(unit: Unit) -> tuple[str, ...]:
    enterprise = unit.enterprise
    return (
        city_of(enterprise.county),
        enterprise.county,
        enterprise.industry,
        enterprise.id,
        unit.id,
    )
