"""Registry of admitted units, by number, with what this process knows of each.

It is kept in arrays, a few hundred bytes per unit including ids and topics, and nothing is evicted: a gateway
needs memory for all units that send, up to some ten million.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.columns import Ints, Rows, Series, grown
from qilu_contract.errors import BadReading, Reason
from qilu_contract.storage import UNIT_TAGS

from qilu_gateway.admit.learned_signals import LearnedSignals


class Tags(NamedTuple):
    """The tags of a unit, in the order of UNIT_TAGS."""

    city: str
    county: str
    industry: str
    enterprise: str
    unit: str


assert Tags._fields == UNIT_TAGS

CLASSES = tuple(CATALOGUE)


class Units:
    def __init__(self) -> None:
        self.series = Series()
        """The index of a unit is its number."""
        self.numbers: dict[str, int] = {}
        """Numbers by id. A unit whose class or owner changes gets a new number."""
        self.checked_s: NDArray[np.float64] = np.zeros(0)
        """Time (monotonic) at which the platform last confirmed the unit; 0: not admitted."""
        self.signals = LearnedSignals()
        """Of generic units."""
        self.on_cloud: NDArray[np.bool_] = np.zeros(0, dtype=bool)
        """The unit's first reading is known to the platform, or waits in the outbox."""
        self.active_ms: Ints = np.zeros(0, dtype=np.int64)
        """Time of the last reading whose activity was reported."""
        self.classes: NDArray[np.int16] = np.zeros(0, dtype=np.int16)
        """Indices in CLASSES; -1 for a class that is not in this process's catalogue."""
        self._class_numbers = {name: number for number, name in enumerate(CLASSES)}

    def __len__(self) -> int:
        return len(self.series)

    def add(self, class_name: str, tags: Tags) -> int:
        """The number of a unit of this class and owner; the caller sets `checked_s`."""
        return int(self.add_many([tags.unit], np.array([self.series.head(class_name, tags[:-1])]))[0])

    def add_many(self, ids: Sequence[str], heads: Ints | Rows) -> Ints:
        """The numbers of many distinct units, by their heads in `series`."""
        numbers = np.fromiter(map(self.numbers.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))
        known = numbers >= 0
        changed = np.flatnonzero(known)[self.series.heads(numbers[known]) != heads[known]]
        self.checked_s[numbers[changed]] = 0.0
        known[changed] = False
        new = np.flatnonzero(~known)
        if not len(new):
            return numbers
        new_ids = [ids[place] for place in new.tolist()]
        numbers[new] = self.series.add_many(new_ids, heads[new].astype(np.int32))
        self.numbers.update(zip(new_ids, numbers[new].tolist(), strict=True))
        size = len(self.series)
        self.checked_s, self.on_cloud = grown(self.checked_s, size), grown(self.on_cloud, size)
        self.active_ms, self.classes = grown(self.active_ms, size), grown(self.classes, size)
        classes = map(self._class_numbers.get, self.series.measurements(heads[new]), repeat(-1))
        self.classes[numbers[new]] = np.fromiter(classes, dtype=np.int16, count=len(new))
        return numbers

    def is_admitted(self, number: int) -> bool:
        return bool(self.checked_s[number])

    def owner(self, number: int) -> tuple[str, str]:
        """County and enterprise."""
        tags = Tags(*self.series.tags(number))
        return tags.county, tags.enterprise

    def owners(self, rows: Rows | Ints) -> list[tuple[str, str]]:
        """County and enterprise of each of these units."""
        counties, enterprises = (self.series.tag(name, rows).tolist() for name in ("county", "enterprise"))
        return list(zip(counties, enterprises, strict=True))

    def admitted(self, ids: Sequence[str]) -> Ints:
        """The number of each of these units; -1 for one that is not admitted."""
        numbers = np.fromiter(map(self.numbers.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))
        known = numbers >= 0
        known[known] = self.checked_s[numbers[known]] > 0
        return np.where(known, numbers, -1)

    def ids(self, rows: Rows | Ints) -> list[str]:
        found: list[str] = self.series.tag("unit", rows).tolist()
        return found

    def of_enterprises(self, enterprises: set[str]) -> Rows:
        """Numbers of the units of these enterprises."""
        return self.series.of_enterprises(enterprises)


class Admitted:
    """View of one admitted unit."""

    __slots__ = ("_units", "number", "tags")

    def __init__(self, units: Units, number: int) -> None:
        self._units, self.number = units, number
        self.tags = Tags(*units.series.tags(number))

    @property
    def class_name(self) -> str:
        return self._units.series.measurement(self.number)

    @property
    def on_cloud(self) -> bool:
        return bool(self._units.on_cloud[self.number])

    def check_owner(self, county: str, enterprise: str) -> None:
        """Raises BadReading(wrong_owner) unless the topic names the unit's own enterprise and county."""
        if (county, enterprise) != (self.tags.county, self.tags.enterprise):
            raise BadReading(
                Reason.WRONG_OWNER,
                f"{self.tags.unit} belongs to {self.tags.county}/{self.tags.enterprise}, "
                f"not to {county}/{enterprise}",
            )
