"""Data structures of the fast path: the readings of an arrival by column, and the intermediate results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from qilu_contract.columns import Columns, Floats, Ints, Rows

from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import BornRows
from qilu_gateway.read.edge_nodes import SequenceNumbers
from qilu_gateway.read.unit_topics import Topic


class Group(NamedTuple):
    """Good readings of one class with the same signals."""

    columns: Columns
    of: Ints
    """For each reading, the index of its message in the arrival."""


class Read(NamedTuple):
    """The messages of an arrival that took the fast path."""

    arrival: Arrival
    places: Ints
    groups: list[Group]
    born: Sequence[BornRows] = ()
    """Changes that their births make."""

    @property
    def weight(self) -> int:
        """Readings."""
        return sum([len(group.of) for group in self.groups])

    def split(self, most: int) -> tuple[Read, Read | None]:
        """Split after the messages that hold at most `most` readings. Births belong to the first part."""
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


class Held(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An undecoded message that waits for the platform's answer about its unit."""

    arrival: Arrival
    place: int
    name: bytes
    """Its topic as received, and parsed."""
    topic: Topic


class Found(NamedTuple):
    """Outcome for the messages of an arrival. `plain`: ascending indices, each with whether its sequence
    number has been checked already."""

    read: Read
    plain: list[tuple[int, bool]]
    held: list[Held]
    sequence: SequenceNumbers | None
    births: int = 0
    """Number of births among the messages read."""
    leading: Sequence[int] = ()
    """Indices of births of edge nodes that the plain path must decode first; if there are any, nothing else
    is decoded."""


class Part:
    """Messages being decoded: for each its index in the arrival and its unit's number (-1: none)."""

    def __init__(self, arrival: Arrival, places: Ints, numbers: Ints) -> None:
        self.arrival, self.places, self.numbers = arrival, places, numbers

    def bodies(self, at: Ints) -> list[bytes]:
        """Payloads of the messages at these indices."""
        payloads = self.arrival.messages.payloads
        if len(at) == len(payloads):
            return payloads
        return [payloads[place] for place in self.places[at].tolist()]


class Readings(NamedTuple):
    """Readings to be checked; `of` is the index of the message in the part."""

    class_: int
    names: tuple[str, ...]
    of: Ints
    ts_ms: Ints
    values: Floats
    bools: tuple[bool, ...] | None = None
    """Signals received as booleans; None: those that are bool in the class."""
    said_ms: Ints | None = None
    """Birth times, for readings of births."""


class Learned(NamedTuple):
    """Births already in effect."""

    at: Ints
    """Their messages."""
    now: BornRows
    before: BornRows
    """The tables of the same units before."""


class Treatment:
    """Treatment of each message: decoded by column, held, or decoded by itself."""

    def __init__(self, size: int) -> None:
        self.read = np.zeros(size, dtype=bool)
        self.held = np.zeros(size, dtype=bool)
        self.followed = np.zeros(size, dtype=bool)
        """Whether its sequence number is in `seqs`, or it has none."""
        self.counts = np.zeros(size, dtype=np.int32)
        """Number of readings of held messages."""
        self.seqs: list[tuple[Ints, Rows, NDArray[np.int16]]] = []
        self.readings: list[Readings] = []
        self.learned: list[Learned] = []

    def reject(self, of: Ints) -> None:
        """Have these messages decoded by themselves, with all of their readings."""
        self.read[of] = False
