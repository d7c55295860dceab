"""A batch on its way to the store, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from qilu_contract.columns import Columns, Ints
from qilu_contract.errors import BadReading, Reason
from qilu_contract.readings import Value
from qilu_contract.storage import Point
from qilu_contract.wire import topics

from qilu_gateway.admit.units import Tags, Units
from qilu_gateway.read.in_flight import InFlightMessage
from qilu_gateway.read.reads import Group, Read
from qilu_gateway.write.store_gate import Refused

LAST = 2**62
"""In place of the number of an arrival: a dead letter that is taken again comes after all else."""
_TIME_BITS = 42
"""Of a time in milliseconds, until the year 2109."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages taken apart one at a time (`plain`), and the others by column."""

    items: Sequence[InFlightMessage | Read]
    """In their order; apart by kind in what follows."""
    plain: list[InFlightMessage]
    reads: list[Read]
    columns: list[Columns]
    """Those of all reads, of one class and with the same signals together."""
    sources: list[list[tuple[Read, Group]]]
    """What each of the columns is made of."""

    @classmethod
    def of(cls, items: Sequence[InFlightMessage | Read]) -> Batch:
        plain = [item for item in items if isinstance(item, InFlightMessage)]
        reads = [item for item in items if isinstance(item, Read)]
        alike: dict[tuple[str, tuple[str, ...]], list[tuple[Read, Group]]] = {}
        for read in reads:
            for group in read.groups:
                alike.setdefault((group.columns.measurement, group.columns.names), []).append((read, group))
        columns = [_joined([group.columns for _, group in some]) for some in alike.values()]
        return cls(items, plain, reads, columns, list(alike.values()))

    @property
    def points(self) -> list[Point]:
        return [point for message in self.plain for point in message.points]

    def keys(self, units: Units) -> list[Ints]:
        """A number for unit and time of each point: an array for each of the columns, and one for the
        points."""
        points = self.points
        rows = np.array([units.numbers.get(Tags(*point.tags).unit, -1) for point in points], dtype=np.int64)
        times = np.array([point.ts_ms for point in points], dtype=np.int64)
        found = [(each.rows.astype(np.int64) << _TIME_BITS) + each.ts_ms for each in self.columns]
        return [*found, (rows << _TIME_BITS) + times]

    def agree(self, keys: Sequence[Ints]) -> Batch:
        """The same points, but where several hold a signal of one unit and time, all hold the value that came
        last: so it stays, in whatever order the store takes points and columns."""
        if len(self.columns) + bool(len(keys[-1])) < 2:
            return self  # written in their order
        ordered = np.sort(np.concatenate(keys))
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        return self._agreed([np.isin(key, again) for key in keys]) if len(again) else self

    def _agreed(self, again: Sequence[NDArray[np.bool_]]) -> Batch:
        """`again`: of columns and points, which may be there several times."""
        columns = [replace(each, values=each.values.copy()) for each in self.columns]
        found: list[tuple[int, int, Point, Columns | InFlightMessage, int]] = []
        for number, each in enumerate(columns):
            for at in np.flatnonzero(again[number]).tolist():
                read, place = self.source(number, at)
                [point] = each.take(np.array([at])).points()
                found.append((read.arrival.number, place, point, each, at))
        its = iter(again[-1].tolist())
        for message in self.plain:
            number = message.arrival.number if message.arrival is not None else LAST
            found += [
                (number, message.place, point, message, at)
                for at, point in enumerate(message.points)
                if next(its)
            ]
        found.sort(key=lambda each: each[:2])
        last: dict[tuple[str, tuple[str, ...], int], dict[str, Value]] = {}
        for _, _, point, _, _ in found:
            last.setdefault(point[:3], {}).update(point.fields)
        for _, _, point, holder, at in found:
            fields = {name: last[point[:3]][name] for name in point.fields}
            if isinstance(holder, InFlightMessage):
                holder.points[at] = point._replace(fields=fields)
            else:
                for name, value in fields.items():
                    holder.values[at, holder.names.index(name)] = value
        return replace(self, columns=columns)

    def source(self, column: int, place: int) -> tuple[Read, int]:
        """From which message a point of the columns comes: its arrival, and its place there."""
        for read, group in self.sources[column]:
            if place < len(group.of):
                return read, int(group.of[place])
            place -= len(group.of)
        raise IndexError(place)


@dataclass(frozen=True, slots=True)
class Written:
    """A batch that is durable: stored, or `spooled`, but for what the store refused."""

    batch: Batch
    columns: list[Columns]
    """Without what was refused."""
    spooled: bool = False
    refused: list[InFlightMessage] = field(default_factory=list)
    """Messages of the columns with readings that the store refused."""

    @classmethod
    def without(cls, batch: Batch, refused: Sequence[Refused]) -> Written:
        """Stored but for these."""
        places: dict[int, list[int]] = {}
        letters: dict[tuple[int, int], InFlightMessage] = {}
        points = batch.points
        owners = {id(point): message for message in batch.plain for point in message.points}
        for each in refused:
            bad = BadReading(Reason.REFUSED_BY_STORE, each.detail)
            if each.group is None:
                point = points[each.place]
                message = owners[id(point)]
                message.points = [kept for kept in message.points if kept is not point]
                message.refuse(bad)
                continue
            places.setdefault(each.group, []).append(each.place)
            read, place = batch.source(each.group, each.place)
            key = id(read.arrival), place
            if key not in letters:
                letters[key] = _message(read, place, Tags(*each.point.tags))
            letters[key].refuse(bad)
        columns = [
            each.take(np.delete(np.arange(len(each)), places[number])) if number in places else each
            for number, each in enumerate(batch.columns)
        ]
        return cls(batch, [each for each in columns if len(each)], refused=list(letters.values()))


def _joined(columns: Sequence[Columns]) -> Columns:
    first = columns[0]
    if len(columns) == 1:
        return first
    return Columns(
        first.measurement,
        first.series,
        np.concatenate([each.rows for each in columns]),
        np.concatenate([each.ts_ms for each in columns]),
        first.names,
        np.concatenate([each.values for each in columns]),
    )


def _message(read: Read, place: int, tags: Tags) -> InFlightMessage:
    """What is told of a message that came the fast way."""
    messages = read.arrival.messages
    topic = messages.topics[place].decode()
    return InFlightMessage(
        topic=topic,
        payload=messages.payloads[place],
        dup=False,
        county=tags.county,
        enterprise=tags.enterprise,
        unit=tags.unit,
        readings=[],
        count=0,
        history=topic.startswith(topics.HISTORY),
    )
