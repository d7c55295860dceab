"""What is read of an arrival by column, and what it goes through on the way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_contract.columns import Columns, Floats, Ints, Rows

from qilu_gateway.connect.unit_topics import Topic
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import BornRows
from qilu_gateway.read.edge_nodes import SequenceNumbers


class Group(NamedTuple):
    """Good readings of one class with the same signals."""

    columns: Columns
    of: Ints
    """Of each, the place of its message in the arrival."""


class Read(NamedTuple):
    """The messages of an arrival that came the fast way."""

    arrival: Arrival
    places: list[int]
    groups: list[Group]
    born: Sequence[BornRows] = ()
    """What births among them change."""

    @property
    def weight(self) -> int:
        """Readings."""
        return sum([len(group.of) for group in self.groups])

    def split(self, most: int) -> tuple[Read, Read | None]:
        """The first of the messages, until they have so many readings, and the rest. Births are durable with
        the first."""
        readings = np.cumsum(self.arrival.counts[self.places])
        count = int(np.searchsorted(readings, most)) + 1
        if count >= len(self.places):
            return self, None
        first: list[Group] = []
        rest: list[Group] = []
        for columns, of in self.groups:
            cut = int(np.searchsorted(of, self.places[count]))
            for part, into in ((slice(0, cut), first), (slice(cut, len(of)), rest)):
                if part.start < part.stop:
                    into.append(Group(columns.take(part), of[part]))
        arrival, places = self.arrival, self.places
        return Read(arrival, places[:count], first, self.born), Read(arrival, places[count:], rest)


class Held(NamedTuple):
    """A message that waits for the platform's word on its unit, not taken apart yet."""

    arrival: Arrival
    place: int
    topic: Topic


class Found(NamedTuple):
    """What becomes of messages. `plain`: places, in their order, with whether their sequence number is
    followed already."""

    read: Read
    plain: list[tuple[int, bool]]
    held: list[Held]
    sequence: SequenceNumbers | None
    births: int = 0
    """Among those that are read."""
    leading: Sequence[int] = ()
    """Places of births of edge nodes that go the plain way before anything else is read, and nothing is."""


class Part:
    """Messages on their way: of each its place in the arrival, and its unit's number (-1: it has none)."""

    def __init__(self, arrival: Arrival, places: Ints, numbers: Ints) -> None:
        self.arrival, self.places, self.numbers = arrival, places, numbers

    def bodies(self, at: Ints) -> list[bytes]:
        """Payloads of some of them."""
        payloads = self.arrival.messages.payloads
        if len(at) == len(payloads):
            return payloads
        return [payloads[place] for place in self.places[at].tolist()]


class Readings(NamedTuple):
    """Readings that are to be checked; `of` counts from the part's first message."""

    class_: int
    names: tuple[str, ...]
    of: Ints
    ts_ms: Ints
    values: Floats
    bools: tuple[bool, ...] | None = None
    """Which signals came as true or false; None: those of which the class says so."""
    said_ms: Ints | None = None
    """Of readings of births, when these were said."""


class Learned(NamedTuple):
    """Births that are in effect already."""

    at: Ints
    """Their messages."""
    now: BornRows
    before: BornRows
    """What was known of the same units."""


class Treatment:
    """What each message goes through: it is read by column, or held, else taken apart by itself."""

    def __init__(self, size: int) -> None:
        self.read = np.zeros(size, dtype=bool)
        self.held = np.zeros(size, dtype=bool)
        self.followed = np.zeros(size, dtype=bool)
        """Its sequence number is among `seqs`, or it has none."""
        self.counts = np.zeros(size, dtype=np.int32)
        """Readings of what is held."""
        self.seqs: list[tuple[Ints, Rows, NDArray[np.int16]]] = []
        self.readings: list[Readings] = []
        self.learned: list[Learned] = []

    def reject(self, of: Ints) -> None:
        """These are taken apart by themselves, with all of their readings."""
        self.read[of] = False
