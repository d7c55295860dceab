"""Equipment that joins in a month of a replay, in blocks that are registered and published together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import city_of
from qilu_contract.columns import Columns, Series
from qilu_contract.storage import Point
from qilu_contract.wire import topics
from qilu_contract.wire.ids import id_prefix
from qilu_devices.simulation import first_values
from qilu_programme.draws import Whole
from qilu_programme.figures import CLASSES
from qilu_programme.world import COUNTY_CODES

CHINA = timezone(timedelta(hours=8))
"""Months of the programme are Asia/Shanghai's, which knows no summer time."""
SPOKEN_MS = 60_000
"""Period that contains all first readings of a month."""
BLOCK_UNITS = 20_000
_PARTS = (60, 30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1)
"""Maximum number of blocks per month; each spans a whole number of milliseconds."""
_COUNTIES = np.array(COUNTY_CODES, dtype=object)
_CITIES = np.array([city_of(county) for county in COUNTY_CODES], dtype=object)


def month_start_ms(month: int) -> int:
    """UTC milliseconds; a month after the programme's last one is good as well."""
    year, place = divmod(2017 * 12 + 9 + month, 12)
    return int(datetime(year, place + 1, 1, tzinfo=CHINA).timestamp() * 1000)


class Unit(NamedTuple):
    id: str
    class_name: str
    enterprise: str
    county: str
    industry: str
    ts_ms: int
    """Time of its first reading."""


class Readings(NamedTuple):
    """First readings of a block's units of one class."""

    class_name: str
    places: Whole
    """Indices of the units in the block."""
    values: NDArray[np.float64]
    """A row for each unit, a column for each of the class's signals, in their order."""


@dataclass(frozen=True)
class Block:
    """Units with first readings from `start_ms` up to, not including, `end_ms`, in time order. They are
    grouped in runs: `sizes[n]` units of one class of one enterprise, numbered from `first[n]` on."""

    fleet: Fleet
    rows: Whole
    """The enterprise of each run, as a row of the fleet."""
    classes: Whole
    first: Whole
    sizes: Whole
    ts_ms: Whole
    """Of each unit."""
    start_ms: int
    end_ms: int

    def __len__(self) -> int:
        return len(self.ts_ms)

    @cached_property
    def ids(self) -> list[str]:
        found: list[str] = []
        for row, class_, first, size in self._runs():
            prefix = id_prefix(self.fleet.county_of(row), CLASSES[class_])
            found += [f"{prefix}{number:07d}" for number in range(first, first + size)]
        return found

    @property
    def units(self) -> list[Unit]:
        """The same, one at a time."""
        fleet, runs = self.fleet, np.repeat(np.arange(len(self.sizes)), self.sizes)
        return [
            Unit(id_, CLASSES[class_], fleet.ids[row], fleet.county_of(row), fleet.industry[row], ts_ms)
            for id_, row, class_, ts_ms in zip(
                self.ids,
                self.rows[runs].tolist(),
                self.classes[runs].tolist(),
                self.ts_ms.tolist(),
                strict=True,
            )
        ]

    def lines(self) -> bytes:
        """CSV for the registry: id, class, enterprise."""
        found, at = [], 0
        for row, class_, _, size in self._runs():
            tail = f",{CLASSES[class_]},{self.fleet.ids[row]}\n"
            found += [tail.join(self.ids[at : at + size]), tail]
            at += size
        return "".join(found).encode()

    def topics(self) -> list[str]:
        """Topic of each unit."""
        found: list[str] = []
        at = 0
        for row, _, _, size in self._runs():
            head, _, tail = topics.telemetry(self.fleet.county_of(row), self.fleet.ids[row], "*").partition(
                "*"
            )
            found += [head + id_ + tail for id_ in self.ids[at : at + size]]
            at += size
        return found

    def payloads(self, seed: int) -> list[bytes]:
        """Payload of each unit: a reading as plain JSON."""
        found = np.empty(len(self), dtype=object)
        encode_lines = msgspec.json.Encoder().encode_lines
        for class_name, places, values in self.readings(seed):
            row = _ROWS[class_name]
            rows = list(map(row, self.ts_ms[places].tolist(), *values.T.tolist()))
            found[places] = encode_lines(rows).split(b"\n")[:-1]
        payloads: list[bytes] = found.tolist()
        return payloads

    def readings(self, seed: int) -> Iterator[Readings]:
        """First readings of all units, by class."""
        classes, rows = np.repeat(self.classes, self.sizes), np.repeat(self.rows, self.sizes)
        for class_ in np.unique(self.classes).tolist():
            places = np.flatnonzero(classes == class_)
            ids = [self.ids[place] for place in places.tolist()]
            owners = [self.fleet.ids[row] for row in rows[places].tolist()]
            values = first_values(CLASSES[class_], ids, owners, seed, self.ts_ms[places])
            yield Readings(CLASSES[class_], places, values)

    def columns(self, seed: int) -> list[Columns]:
        """Expected points of the block in the store."""
        found = []
        runs, ids = np.repeat(self.rows, self.sizes), np.array(self.ids, dtype=object)
        owners, industries = (np.array(each, dtype=object) for each in (self.fleet.ids, self.fleet.industry))
        for class_name, places, values in self.readings(seed):
            rows = runs[places]
            counties = self.fleet.county[rows]
            tags = {
                "city": _CITIES[counties],
                "county": _COUNTIES[counties],
                "industry": industries[rows],
                "enterprise": owners[rows],
                "unit": ids[places],
            }
            names = tuple(signal.name for signal in CATALOGUE[class_name].signals)
            numbers = np.arange(len(places), dtype=np.int32)
            series = Series.of(class_name, tags)
            found.append(Columns(class_name, series, numbers, self.ts_ms[places], names, values))
        return found

    def points(self, seed: int) -> Iterator[Point]:
        """The same, one at a time, by class."""
        for columns in self.columns(seed):
            yield from columns.points()

    def _runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Row of the fleet, class, first number and size of each."""
        columns = (self.rows, self.classes, self.first, self.sizes)
        return zip(*(column.tolist() for column in columns), strict=True)


_ROWS = {
    name: msgspec.defstruct(name, ["ts", *(signal.name for signal in class_.signals)], gc=False)
    for name, class_ in CATALOGUE.items()
}
"""A reading of each class as it is encoded."""


@dataclass(frozen=True)
class Fleet:
    """The equipment that joins in a month: an enterprise a row, classes as columns. `first` is the number of
    an enterprise's first unit of a class, which counts by county and class from 1 as long as the programme
    runs."""

    month: int
    ids: list[str]
    county: Whole
    industry: list[str]
    counts: Whole
    first: Whole

    @property
    def units(self) -> int:
        return int(self.counts.sum())

    def county_of(self, row: int) -> str:
        """Its code."""
        return COUNTY_CODES[int(self.county[row])]

    def blocks(self) -> Iterator[Block]:
        total, start_ms = self.units, month_start_ms(self.month)
        if not total:
            return
        parts = next((parts for parts in _PARTS if total >= parts * BLOCK_UNITS), 1)
        counts, first = self.counts.ravel(), self.first.ravel()
        ends = np.cumsum(counts)
        step_ms = SPOKEN_MS // parts
        for part in range(parts):
            low, high = -(-part * total // parts), -(-(part + 1) * total // parts)
            runs = np.arange(
                np.searchsorted(ends, low, side="right"), np.searchsorted(ends, high - 1, side="right") + 1
            )
            runs = runs[counts[runs] > 0]
            begins = ends[runs] - counts[runs]
            cut = np.maximum(begins, low)
            rows, classes = np.divmod(runs, len(CLASSES))
            ts_ms = start_ms + np.arange(low, high) * SPOKEN_MS // total
            begin_ms = start_ms + part * step_ms
            yield Block(
                self,
                rows,
                classes,
                first[runs] + cut - begins,
                np.minimum(ends[runs], high) - cut,
                ts_ms,
                begin_ms,
                begin_ms + step_ms,
            )
