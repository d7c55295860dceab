"""Batches on their way to the store, and their outcome."""

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
"""Sort key in place of an arrival's number: a replayed dead letter comes last."""
_TIME_BITS = 42
"""Bits of a time in milliseconds, enough until the year 2109."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch: messages decoded one at a time (`plain`), and the others by column."""

    items: Sequence[InFlightMessage | Read]
    """All items in order; the following fields hold them by kind."""
    plain: list[InFlightMessage]
    reads: list[Read]
    columns: list[Columns]
    """Columns of all reads; those of one class with the same signals are joined."""
    sources: list[list[tuple[Read, Group]]]
    """The parts that each of the columns was joined from."""

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
        """A number for the unit and time of each point: an array for each of the columns, and one for the
        points."""
        points = self.points
        rows = np.array([units.numbers.get(Tags(*point.tags).unit, -1) for point in points], dtype=np.int64)
        times = np.array([point.ts_ms for point in points], dtype=np.int64)
        found = [(each.rows.astype(np.int64) << _TIME_BITS) + each.ts_ms for each in self.columns]
        return [*found, (rows << _TIME_BITS) + times]

    def agree(self, keys: Sequence[Ints]) -> Batch:
        """The same points, except that points with equal unit, time and signal all hold the value that
        arrived last. So the last value wins, whatever the order in which the store writes points and
        columns."""
        if len(self.columns) + bool(len(keys[-1])) < 2:
            return self  # written in order
        ordered = np.sort(np.concatenate(keys))
        again = ordered[1:][ordered[1:] == ordered[:-1]]
        return self._agreed([np.isin(key, again) for key in keys]) if len(again) else self

    def _agreed(self, again: Sequence[NDArray[np.bool_]]) -> Batch:
        """`again`: masks of the points, for columns and points, that may occur several times."""
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
        """The message that a point of the columns comes from: its arrival, and its index there."""
        for read, group in self.sources[column]:
            if place < len(group.of):
                return read, int(group.of[place])
            place -= len(group.of)
        raise IndexError(place)


@dataclass(frozen=True, slots=True)
class Written:
    """A durable batch: stored or `spooled`, except for points that the store rejected."""

    batch: Batch
    columns: list[Columns]
    """The columns without rejected points."""
    spooled: bool = False
    refused: list[InFlightMessage] = field(default_factory=list)
    """Columnar messages with readings that the store rejected."""

    @classmethod
    def without(cls, batch: Batch, refused: Sequence[Refused]) -> Written:
        """A stored batch without these rejected points."""
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
            read, place = batch.source(each.group, each.place)
            key = id(read.arrival), place
            if key not in letters:
                letters[key] = _message(read, place, Tags(*each.point.tags))
            letters[key].refuse(bad)
        _, columns = without_refused((), batch.columns, refused)
        return cls(batch, columns, refused=list(letters.values()))


def without_refused(
    points: Sequence[Point], columns: Sequence[Columns], refused: Sequence[Refused]
) -> tuple[list[Point], list[Columns]]:
    """The points and columns of a batch that the store has taken."""
    places: dict[int | None, list[int]] = {}
    for each in refused:
        places.setdefault(each.group, []).append(each.place)
    gone = set(places.get(None, ()))
    kept = [
        some.take(np.delete(np.arange(len(some)), places[number])) if number in places else some
        for number, some in enumerate(columns)
    ]
    return [point for at, point in enumerate(points) if at not in gone], [some for some in kept if len(some)]


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
    """An InFlightMessage for a message that took the fast path, for its dead letter."""
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
