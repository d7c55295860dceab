"""The fast way in: from messages to columns, all at once. It takes what nearly every message is: plain JSON,
or data of a device whose birth is durable and in use, of a unit that is admitted, delivered for the first
time, with readings that are good in every respect. What is in any way different is left to the plain way
(`decoding.py`), which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_common.mqtt.messages import DUP, RETAINED
from qilu_contract.columns import Columns, Floats, Ints, Rows
from qilu_contract.wire import json_columns
from qilu_contract.wire.sparkplug import DataType
from qilu_contract.wire.sparkplug_columns import SparkplugColumns, integers
from qilu_contract.wire.sparkplug_layouts import Metrics

from qilu_gateway.admit.units import CLASSES, Units
from qilu_gateway.connect import unit_topics
from qilu_gateway.connect.unit_topics import HISTORIC, JSON, LIVE, Topic
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import Births
from qilu_gateway.read.edge_nodes import EdgeNode, SequenceNumbers
from qilu_gateway.write.checking import check_columns

_MOST_OFFSET = 1 << 20


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

    @property
    def weight(self) -> int:
        """Readings."""
        return sum([len(group.of) for group in self.groups])

    def split(self, most: int) -> tuple[Read, Read | None]:
        """The first of the messages, until they have so many readings, and the rest."""
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
        return Read(arrival, places[:count], first), Read(arrival, places[count:], rest)


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


class _Part:
    """Messages on their way: of each its place in the arrival, and its unit's number (-1: it has none)."""

    def __init__(self, arrival: Arrival, places: Ints, numbers: Ints) -> None:
        self.arrival, self.places, self.numbers = arrival, places, numbers

    def take(self, which: NDArray[np.bool_]) -> _Part:
        return _Part(self.arrival, self.places[which], self.numbers[which])

    @property
    def bodies(self) -> list[bytes]:
        payloads = self.arrival.messages.payloads
        if len(self.places) == len(payloads):
            return payloads
        return [payloads[place] for place in self.places.tolist()]


class Reader:
    def __init__(self, units: Units, births: Births, max_payload_bytes: int) -> None:
        self._units, self._births, self._max_payload_bytes = units, births, max_payload_bytes
        self._layouts = SparkplugColumns()
        self._topics: dict[bytes, int] = {}
        """Topics of admitted units' own data: the unit's number, and the kind in the lowest bits."""

    def learn(self, name: bytes, topic: Topic) -> int | None:
        """The number and kind by which a topic is known from now on; None unless it is an admitted unit's
        own."""
        number = self._units.numbers.get(topic.unit)
        if number is None or self._units.owner(number) != (topic.county, topic.enterprise):
            return None
        code = self._topics[name] = number << 2 | topic.kind
        return code

    def node(self, topic: bytes) -> EdgeNode | None:
        """The edge node whose topic it is, if anything is known of it."""
        key = unit_topics.node(topic)
        return None if key is None else self._births.nodes.known(*key)

    def born_or_dead(self, names: Iterable[bytes]) -> set[tuple[str, str]]:
        """Nodes of which a birth or death is among these topics."""
        return unit_topics.born_or_dead(name for name in names if name not in self._topics)

    def read(
        self,
        arrival: Arrival,
        which: Sequence[int] | None,
        latest_ms: int,
        may_wait: Callable[[str], bool],
        *,
        followed: bool = False,
    ) -> Found:
        """What becomes of the messages at these places (None: of all). `latest_ms`: readings later than this
        are not believed. `may_wait`: whether messages of a unit that is not admitted are held; else they go
        the plain way. `followed`: their sequence numbers are known. Nothing has changed when it raises
        sqlite3.OperationalError, because births cannot be read."""
        messages = arrival.messages
        places = np.arange(len(messages)) if which is None else np.array(which, dtype=np.int64)
        names = messages.topics if which is None else [messages.topics[place] for place in which]
        find = self._topics.get
        codes = np.array([find(name, -1) for name in names], dtype=np.int64)
        flags = np.array(messages.flags, dtype=np.uint8)[places]
        usable = (flags & (DUP | RETAINED)) == 0
        sizes = np.fromiter(map(len, messages.payloads), dtype=np.int64, count=len(messages))[places]
        usable &= sizes <= self._max_payload_bytes
        known = usable & (codes >= 0)
        known[known] = self._units.checked_s[codes[known] >> 2] > 0
        strangers: dict[int, Topic] = {}
        others: list[bytes] = []
        for at in np.flatnonzero(~known).tolist():
            topic = unit_topics.parse(names[at]) if usable[at] else None
            if topic is None:
                others.append(names[at])
                continue
            number = self._units.numbers.get(topic.unit)
            if number is None or not self._units.is_admitted(number):
                if may_wait(topic.unit):
                    strangers[at] = topic
            elif (code := self.learn(names[at], topic)) is not None:
                codes[at], known[at] = code, True
        numbers, kinds = np.where(known, codes >> 2, -1), np.where(known, codes & 3, -1)
        for at, topic in strangers.items():
            kinds[at] = topic.kind
        dirty = self.born_or_dead(others)
        part = _Part(arrival, places, numbers)
        way = _Way(len(places))
        for kind in (LIVE, HISTORIC):
            mask = kinds == kind
            if mask.any():
                mine = {int(at): topic for at, topic in strangers.items() if topic.kind == kind}
                self._read_sparkplug(part, mask, kind == HISTORIC, mine, dirty, way)
        mask = kinds == JSON
        if mask.any():
            self._read_json(part, mask, strangers, way)
        return self._found(part, way, latest_ms, strangers, unit_topics.units(others), followed)

    def _read_json(
        self, part: _Part, mask: NDArray[np.bool_], strangers: dict[int, Topic], way: _Way
    ) -> None:
        held = [at for at in strangers if mask[at]]
        for at in held:
            if part.arrival.messages.payloads[part.places[at]].startswith(b"{"):
                way.counts[at], way.held[at] = 1, True
        known = np.flatnonzero(mask & (part.numbers >= 0))
        classes = self._units.classes[part.numbers[known]]
        for class_ in np.unique(classes[classes >= 0]).tolist():
            at = known[classes == class_]
            some = _Part(part.arrival, part.places[at], part.numbers[at])
            decoded = json_columns.decode(CLASSES[class_], some.bodies)
            way.read[at] = True
            way.read[at[decoded.rest]] = False
            for group in decoded.groups:
                way.groups.append(_Rows(class_, group.names, at[group.of], group.ts_ms, group.values))

    def _read_sparkplug(
        self,
        part: _Part,
        mask: NDArray[np.bool_],
        history: bool,
        strangers: dict[int, Topic],
        dirty: set[tuple[str, str]],
        way: _Way,
    ) -> None:
        births, nodes = self._births, self._births.nodes
        known = np.flatnonzero(mask & (part.numbers >= 0))
        rows = part.numbers[known].astype(np.int32)
        durable = births.durable(rows, history=history)
        born = (durable.layouts > 0) & (durable.sessions == nodes.sessions[durable.nodes])
        unsaved = births.unsaved_units()
        if unsaved:
            numbers = [self._units.numbers[unit] for unit in unsaved if unit in self._units.numbers]
            born &= ~np.isin(rows, numbers)
        busy = [node.number for key in dirty if (node := nodes.known(*key)) is not None]
        if busy:
            born &= ~np.isin(durable.nodes, busy)
        waiting = {
            at: nodes.find(topic.group, topic.enterprise).number
            for at, topic in strangers.items()
            if topic.unit not in unsaved and (topic.group, topic.enterprise) not in dirty
        }
        at = np.concatenate((known[born], np.array(list(waiting), dtype=np.int64)))
        node_of = np.concatenate((durable.nodes[born], np.array(list(waiting.values()), dtype=np.int32)))
        order = np.argsort(at)
        at, node_of = at[order], node_of[order]
        decoded = self._layouts.decode(_Part(part.arrival, part.places[at], at).bodies)
        good = np.ones(len(at), dtype=bool)
        good[decoded.rest] = False
        has_seq = good & (decoded.seq >= 0)
        way.seqs.append((at[has_seq], node_of[has_seq], decoded.seq[has_seq]))
        way.followed[at[good]] = True
        way.held[at[good]] = part.numbers[at[good]] < 0
        way.read[at[good]] = part.numbers[at[good]] >= 0
        layouts, firsts = np.zeros(len(way.read), np.int64), np.zeros(len(way.read), np.int64)
        layouts[known], firsts[known] = durable.layouts, durable.firsts
        for group in decoded.groups:
            of = at[group.of]
            way.counts += np.bincount(of, minlength=len(way.counts)).astype(np.int32) * way.held
            mine = part.numbers[of] >= 0
            of = of[mine]
            offsets = group.first[mine] - firsts[of]
            classes = self._units.classes[part.numbers[of]].astype(np.int64)
            good_offset = (offsets >= 0) & (offsets < _MOST_OFFSET) & (classes >= 0)
            keys = (classes << 52) + (layouts[of] << 20) + offsets
            for key in np.unique(keys[good_offset]).tolist():
                which = good_offset & (keys == key)
                signals = births.layouts.signals(key >> 20 & 0xFFFFFFFF, key & 0xFFFFF, group.metrics)
                values = group.values[mine][which]
                if signals is not None:
                    names, datatypes = signals
                    values, whole = _as_meant(values, group.metrics, datatypes)
                    way.reject(of[which][~whole])
                    bools = tuple([datatype == DataType.BOOLEAN for datatype in datatypes])
                    way.groups.append(
                        _Rows(key >> 52, names, of[which], group.ts_ms[mine][which], values, bools)
                    )
                else:
                    way.reject(of[which])
            way.reject(of[~good_offset])

    def _found(
        self,
        part: _Part,
        way: _Way,
        latest_ms: int,
        strangers: dict[int, Topic],
        others: set[str],
        followed: bool,
    ) -> Found:
        groups: list[tuple[_Rows, Floats]] = []
        for rows in way.groups:
            class_name = CLASSES[rows.class_]
            checked = check_columns(class_name, rows.names, rows.ts_ms, rows.values, latest_ms, rows.bools)
            way.reject(rows.of[~(checked.good & checked.usual)])
            groups.append((rows, checked.values))
        self._keep_in_order(part, way, strangers, others)
        made: list[Group] = []
        for rows, values in groups:
            kept = way.read[rows.of]
            of, ts_ms = rows.of, rows.ts_ms
            if not kept.all():
                of, ts_ms, values = of[kept], ts_ms[kept], values[kept]
            if len(of):
                numbers = part.numbers[of].astype(np.int32)
                columns = Columns(
                    CLASSES[rows.class_], self._units.series, numbers, ts_ms, rows.names, values
                )
                made.append(Group(columns, part.places[of]))
        arrival = part.arrival
        for group in made:
            arrival.counts += np.bincount(group.of, minlength=len(arrival.counts)).astype(np.int32)
        held = []
        for at in np.flatnonzero(way.held).tolist():
            place = int(part.places[at])
            arrival.counts[place] = way.counts[at]
            held.append(Held(arrival, place, strangers[at]))
        plain = np.flatnonzero(~way.read & ~way.held)
        is_followed = way.followed[plain] | followed
        sequence = None
        if not followed and any(len(at) for at, _, _ in way.seqs):
            followed_at, nodes, seqs = (np.concatenate(parts) for parts in zip(*way.seqs, strict=True))
            order = np.argsort(followed_at)
            came = part.places[followed_at[order]]
            sequence = SequenceNumbers(self._births.nodes, came, nodes[order], seqs[order])
        return Found(
            Read(arrival, part.places[way.read].tolist(), made),
            list(zip(part.places[plain].tolist(), is_followed.tolist(), strict=True)),
            held,
            sequence,
        )

    def _keep_in_order(self, part: _Part, way: _Way, strangers: dict[int, Topic], others: set[str]) -> None:
        """A unit's messages are written in their order: when one of them goes the plain way, all others of
        the arrival do, too. `others`: units of which one does that has no number."""
        plain = ~way.read & ~way.held
        numbers = [self._units.numbers[unit] for unit in others if unit in self._units.numbers]
        odd = np.union1d(part.numbers[plain & (part.numbers >= 0)], np.array(numbers, dtype=np.int64))
        if len(odd):
            way.read &= ~np.isin(part.numbers, odd)
        units = others.union([topic.unit for at, topic in strangers.items() if plain[at]])
        for at, topic in strangers.items() if units else ():
            if topic.unit in units:
                way.held[at] = False


class _Rows(NamedTuple):
    """Readings that are to be checked; `of` counts from the part's first message."""

    class_: int
    names: tuple[str, ...]
    of: Ints
    ts_ms: Ints
    values: Floats
    bools: tuple[bool, ...] | None = None
    """Which signals came as true or false; None: those of which the class says so."""


class _Way:
    """Which way each message goes: read, or held, else the plain one."""

    def __init__(self, size: int) -> None:
        self.read = np.zeros(size, dtype=bool)
        self.held = np.zeros(size, dtype=bool)
        self.followed = np.zeros(size, dtype=bool)
        """Its sequence number is among `seqs`, or it has none."""
        self.counts = np.zeros(size, dtype=np.int32)
        """Readings of what is held."""
        self.seqs: list[tuple[Ints, Rows, NDArray[np.int16]]] = []
        self.groups: list[_Rows] = []

    def reject(self, of: Ints) -> None:
        """These go the plain way, with all of their readings."""
        self.read[of] = False


def _as_meant(values: Floats, metrics: Metrics, datatypes: Sequence[int]) -> tuple[Floats, NDArray[np.bool_]]:
    """Whole numbers by their datatypes, and which readings are understood."""
    good = np.ones(len(values), dtype=bool)
    for column, (type_, datatype) in enumerate(zip(metrics.types, datatypes, strict=True)):
        if type_ not in (DataType.FLOAT, DataType.DOUBLE, DataType.BOOLEAN):
            values[:, column], fine = integers(values[:, column], datatype)
            good &= fine
    return values, good
