"""Points by column: what the gateway makes of many messages, and what stores, the spool and the roll-ups take
of it at once. A `Point` is the same, one at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qilu_contract.readings import Value
from qilu_contract.storage import MEASUREMENTS, UNIT_TAGS, FieldType, Point, line_prefix

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Rows = NDArray[np.int32]
_Number = TypeVar("_Number", bound=np.generic)

NUMPY_TYPES: dict[FieldType, Any] = {"float": np.float64, "int": np.int64, "bool": np.bool_}
EXACT = 2**53
"""Integers up to this, either side of zero, are held exactly; columns hold no larger ones."""


class Series:
    """Units by number, in the order in which they came: class, tags, and what a line of line protocol begins
    with. A number stands for the same unit for ever. About 300 bytes each, names included."""

    def __init__(self) -> None:
        self._size = 0
        self._classes = _objects(1024)
        self._tags = {tag: _objects(1024) for tag in UNIT_TAGS}
        self._prefixes = _objects(1024)

    def __len__(self) -> int:
        return self._size

    def add(self, measurement: str, tags: Sequence[str]) -> int:
        """A new unit's number. `tags` in the order of UNIT_TAGS; it is not asked whether they are there."""
        number = self._size
        if number == len(self._classes):
            self._classes = _grown(self._classes)
            self._tags = {tag: _grown(column) for tag, column in self._tags.items()}
            self._prefixes = _grown(self._prefixes)
        self._classes[number] = measurement
        for tag, value in zip(UNIT_TAGS, tags, strict=True):
            self._tags[tag][number] = value
        self._size += 1
        return number

    @classmethod
    def of(cls, measurement: str, tags: Mapping[str, NDArray[Any]]) -> Series:
        """Units of one class by their tags, arrays of str: as many numbers as these are long, from 0 on."""
        found = cls()
        found._tags = dict(tags)
        found._size = len(found._tags["unit"])
        found._classes = np.full(found._size, measurement, dtype=object)
        found._prefixes = _objects(found._size)
        return found

    def measurement(self, number: int) -> str:
        return str(self._classes[number])

    def of_class(self, measurement: str) -> Rows:
        """The numbers of a class's units."""
        return np.flatnonzero(self._classes[: self._size] == measurement).astype(np.int32)

    def tags(self, number: int) -> tuple[str, ...]:
        return tuple([column[number] for column in self._tags.values()])

    def tag(self, name: str, rows: Rows) -> NDArray[Any]:
        """The tag of each of these series: an array of str."""
        found: NDArray[Any] = self._tags[name][rows]
        return found

    def prefixes(self, rows: Rows) -> list[str]:
        """Measurement and tags of each of these series, as a line of line protocol begins."""
        found: list[str | None] = self._prefixes[rows].tolist()
        if None in found:
            for number in np.unique(rows).tolist():
                if self._prefixes[number] is None:
                    self._prefixes[number] = line_prefix(self._classes[number], self.tags(number))
            found = self._prefixes[rows].tolist()
        return found  # type: ignore[return-value]  # filled above


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Points of one class with the same fields; nobody changes them once they are made."""

    measurement: str
    series: Series
    rows: Rows
    """Of each point, the number of its unit in `series`."""
    ts_ms: Ints
    """UTC."""
    names: tuple[str, ...]
    """Fields, of the measurement's schema."""
    values: Floats
    """A row for each point, a column for each field, whatever the field's type (bool: 0 or 1). NaN: the point
    has no such field. Each point has one at least."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[Any] | slice) -> Columns:
        """Some of the points: a mask, or places."""
        return Columns(
            self.measurement,
            self.series,
            self.rows[which],
            self.ts_ms[which],
            self.names,
            self.values[which],
        )

    def column(self, name: str) -> Floats:
        """A field's values; NaN where there is no such field."""
        if name in self.names:
            return self.values[:, self.names.index(name)]
        return np.full(len(self), np.nan)

    def points(self) -> list[Point]:
        """The same, one at a time."""
        types = [MEASUREMENTS[self.measurement].fields[name] for name in self.names]
        found = []
        for number, ts_ms, values in zip(
            self.rows.tolist(), self.ts_ms.tolist(), self.values.tolist(), strict=True
        ):
            fields = {
                name: _value(value, type_)
                for name, value, type_ in zip(self.names, values, types, strict=True)
                if value == value
            }
            found.append(Point(self.measurement, self.series.tags(number), ts_ms, fields))
        return found


def of_points(
    points: Iterable[Point], series: Series, numbers: dict[str, int], *, exact: bool = True
) -> list[Columns]:
    """Points of units by column, those with the same fields together, in their order. `numbers`: units that
    are in `series`, by id; new ones are added. Raises ValueError for an integer beyond EXACT, which becomes
    the nearest float where it need not be `exact`."""
    alike: dict[tuple[str, tuple[str, ...]], list[Point]] = {}
    for point in points:
        alike.setdefault((point.measurement, tuple(point.fields)), []).append(point)
    found = []
    for (measurement, names), some in alike.items():
        for point in some:
            if point.tags[-1] not in numbers:
                numbers[point.tags[-1]] = series.add(measurement, point.tags)
            if exact and any(type(value) is int and abs(value) > EXACT for value in point.fields.values()):
                raise ValueError(f"{point.tags[-1]}: an integer beyond {EXACT}")
        found.append(
            Columns(
                measurement,
                series,
                np.array([numbers[point.tags[-1]] for point in some], dtype=np.int32),
                np.array([point.ts_ms for point in some], dtype=np.int64),
                names,
                np.array([tuple(point.fields.values()) for point in some], dtype=np.float64),
            )
        )
    return found


def grown(column: NDArray[_Number], size: int) -> NDArray[_Number]:
    """The column with room for `size` numbers at least; zeros, which take no memory before they are written
    to, follow those that are there."""
    if size <= len(column):
        return column
    found = np.zeros(max(size, len(column) * 3 // 2, 1024), dtype=column.dtype)
    found[: len(column)] = column
    return found


def _value(value: float, type_: FieldType) -> Value:
    if type_ == "float":
        return value
    return int(value) if type_ == "int" else bool(value)


def _objects(size: int) -> NDArray[Any]:
    return np.full(size, None, dtype=object)


def _grown(column: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((column, _objects(max(len(column), 1024))))
