"""Points by column: the form in which the gateway passes many readings to stores, spool and roll-ups at once.
A `Point` is the same for a single reading.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from qilu_contract.readings import Value
from qilu_contract.storage import MEASUREMENTS, UNIT_TAGS, FieldType, Point, escaped_tag, line_prefix

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Rows = NDArray[np.int32]
_Number = TypeVar("_Number", bound=np.generic)

Head = tuple[str, ...]
"""Head: measurement and tags of a unit without its id, which is the last of UNIT_TAGS."""
_HEAD_TAGS = UNIT_TAGS[:-1]
_MEASUREMENT, _TEXT = "measurement", "text"
"""Beside the tags of a head; the text is what its lines begin with."""
_PLAIN = re.compile(r"[A-Za-z0-9._-]+").fullmatch
NUMPY_TYPES: dict[FieldType, Any] = {"float": np.float64, "int": np.int64, "bool": np.bool_}
EXACT = 2**53
"""Integers up to this, either side of zero, are held exactly; columns hold no larger ones."""


class Series:
    """Registry of units by number, in the order of arrival: class and tags. A number permanently denotes the
    same unit. The head that units of one enterprise, class and place share is kept once: a unit takes twelve
    bytes, and its id."""

    def __init__(self) -> None:
        self._size = 0
        self._ids = _objects(1024)
        self._head_of: Rows = np.zeros(1024, dtype=np.int32)
        self._heads: dict[Head, int] = {}
        self._head_tags = {tag: _objects(64) for tag in (*_HEAD_TAGS, _MEASUREMENT, _TEXT)}
        self._are_plain = True
        """No unit's id has to be escaped in a line."""

    def __len__(self) -> int:
        return self._size

    def head(self, measurement: str, tags: Sequence[str]) -> int:
        """The number of a head; `tags` in the order of UNIT_TAGS, without the unit."""
        key = measurement, *tags
        number = self._heads.get(key)
        if number is None:
            number = self._heads[key] = len(self._heads)
            if number == len(self._head_tags[_TEXT]):
                self._head_tags = {name: _grown(column) for name, column in self._head_tags.items()}
            for name, value in zip((_MEASUREMENT, *_HEAD_TAGS), key, strict=True):
                self._head_tags[name][number] = value
        return number

    def add(self, measurement: str, tags: Sequence[str]) -> int:
        """A new unit's number. `tags` in the order of UNIT_TAGS; it is not asked whether they are there."""
        head = self.head(measurement, tags[:-1])
        return int(self.add_many(tags[-1:], np.array([head], dtype=np.int32))[0])

    def add_many(self, ids: Sequence[str], heads: Rows) -> Rows:
        """New units' numbers."""
        first, size = self._size, self._size + len(ids)
        while size > len(self._ids):
            self._ids = _grown(self._ids)
        self._head_of = grown(self._head_of, size)
        self._ids[first:size] = ids
        self._head_of[first:size] = heads
        self._are_plain = self._are_plain and all(ids) and _PLAIN("".join(ids)) is not None
        self._size = size
        return np.arange(first, size, dtype=np.int32)

    @staticmethod
    def of(measurement: str, tags: Mapping[str, NDArray[Any]]) -> Series:
        """As many numbers as these arrays of str are long, from 0 on; to read tags of, and no more."""
        return _TagColumns(measurement, tags)

    def measurement(self, number: int) -> str:
        return str(self._head_tags[_MEASUREMENT][self._head_of[number]])

    def of_class(self, measurement: str) -> Rows:
        """The numbers of a class's units."""
        heads = np.flatnonzero(self._head_tags[_MEASUREMENT] == measurement)
        return np.flatnonzero(np.isin(self._head_of[: self._size], heads)).astype(np.int32)

    def of_enterprises(self, enterprises: Collection[str]) -> Rows:
        """The numbers of these enterprises' units."""
        heads = [number for head, number in self._heads.items() if head[-1] in enterprises]
        return np.flatnonzero(np.isin(self._head_of[: self._size], heads)).astype(np.int32)

    def heads(self, rows: Rows | Ints) -> Rows:
        """The head's number of each of these units."""
        return self._head_of[rows]

    def measurements(self, heads: Rows | Ints) -> list[str]:
        found: list[str] = self._head_tags[_MEASUREMENT][heads].tolist()
        return found

    def tags(self, number: int) -> tuple[str, ...]:
        head = self._head_of[number]
        return (*[self._head_tags[tag][head] for tag in _HEAD_TAGS], self._ids[number])

    def tag(self, name: str, rows: Rows | Ints) -> NDArray[Any]:
        """The tag of each of these series: an array of str."""
        found: NDArray[Any] = (
            self._ids[rows] if name == UNIT_TAGS[-1] else self._head_tags[name][self._head_of[rows]]
        )
        return found

    def line_starts(self, rows: Rows) -> tuple[list[str], list[str]]:
        """The beginning of a line in line protocol, for each of these series, in two parts."""
        heads, texts = self._head_of[rows], self._head_tags[_TEXT]
        found: list[str | None] = texts[heads].tolist()
        if None in found:
            for number in np.unique(heads).tolist():
                if texts[number] is None:
                    measurement, *tags = (
                        self._head_tags[name][number] for name in (_MEASUREMENT, *_HEAD_TAGS)
                    )
                    texts[number] = line_prefix(measurement, [*tags, "-"])[:-1]
            found = texts[heads].tolist()
        ids: list[str] = self._ids[rows].tolist()
        return found, ids if self._are_plain else list(map(escaped_tag, ids))  # type: ignore[return-value]  # filled above


class _TagColumns(Series):
    def __init__(self, measurement: str, tags: Mapping[str, NDArray[Any]]) -> None:
        self._measurement, self._columns = measurement, tags
        self._size = len(next(iter(tags.values())))

    def measurement(self, number: int) -> str:
        return self._measurement

    def tags(self, number: int) -> tuple[str, ...]:
        return tuple([column[number] for column in self._columns.values()])

    def tag(self, name: str, rows: Rows | Ints) -> NDArray[Any]:
        found: NDArray[Any] = self._columns[name][rows]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Points of one class with the same fields; immutable."""

    measurement: str
    series: Series
    rows: Rows
    """For each point, the number of its unit in `series`."""
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
        """The same as a list of points."""
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
