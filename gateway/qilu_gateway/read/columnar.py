"""The fast path: decodes many messages into columns at once.

It handles nearly all messages: plain JSON, a device's birth, or data of a device whose birth is in use. The
unit must be admitted, the message delivered for the first time, and every reading good. All other messages
take the plain path (`decoding.py`), which gives the same result.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray
from qilu_common.mqtt.messages import DUP, RETAINED
from qilu_contract.columns import Columns, Floats, Ints
from qilu_contract.storage import BORN
from qilu_contract.wire import json_columns

from qilu_gateway.admit.units import CLASSES, Units
from qilu_gateway.read import unit_topics
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import Births
from qilu_gateway.read.checking import check_columns
from qilu_gateway.read.edge_nodes import EdgeNode, SequenceNumbers
from qilu_gateway.read.reads import Found, Group, Held, Part, Read, Readings, Treatment
from qilu_gateway.read.sparkplug_reader import SparkplugReader
from qilu_gateway.read.unit_topics import BIRTH, HISTORIC, JSON, LIVE, Topic


class Reader:
    def __init__(self, units: Units, births: Births, max_payload_bytes: int) -> None:
        self._units, self._births, self._max_payload_bytes = units, births, max_payload_bytes
        self._sparkplug = SparkplugReader(units, births)
        self._topics: dict[bytes, int] = {}
        """Data topics of admitted units: the unit's number, with the kind in the lowest bits."""

    def learn_all(self, held: Sequence[Held]) -> None:
        """Cache the data topics of those of these messages whose units are admitted."""
        topics = [each.topic for each in held]
        numbers = self._units.admitted([topic.unit for topic in topics])
        self._learn([each.name for each in held], topics, numbers)

    def _learn(self, names: Sequence[bytes], topics: Sequence[Topic], numbers: Ints) -> list[int]:
        """Indices of those of these topics that belong to their units, which are given by number (-1: not
        admitted). Data topics among them are cached; the topics of births are too many."""
        at = np.flatnonzero(numbers >= 0)
        counties, enterprises = (
            self._units.series.tag(tag, numbers[at]).tolist() for tag in ("county", "enterprise")
        )
        own = []
        for place, number, county, enterprise in zip(
            at.tolist(), numbers[at].tolist(), counties, enterprises, strict=True
        ):
            topic = topics[place]
            if topic.enterprise == enterprise and topic.county == county:
                own.append(place)
                if not topic.kind & BIRTH:
                    self._topics[names[place]] = number << 2 | topic.kind
        return own

    def node(self, topic: bytes) -> EdgeNode | None:
        """The edge node of the topic, if it is known."""
        key = unit_topics.node(topic)
        return None if key is None else self._births.nodes.known(*key)

    def read(
        self,
        arrival: Arrival,
        which: Sequence[int] | None,
        latest_ms: int,
        unknown: Callable[[Iterable[str]], set[str]],
        *,
        followed: bool = False,
    ) -> Found:
        """Decode the messages at these indices (None: all). Readings later than `latest_ms` are rejected.
        `unknown` returns those of the given units that are known not to exist: their messages take the plain
        path, while those of other units that are not admitted are held. `followed`: their sequence numbers
        have been checked already. Raises sqlite3.OperationalError when births cannot be read; then nothing
        has changed."""
        messages = arrival.messages
        places = np.arange(len(messages)) if which is None else np.array(which, dtype=np.int64)
        names = messages.topics if which is None else [messages.topics[place] for place in which]
        codes = np.fromiter(map(self._topics.get, names, repeat(-1)), dtype=np.int64, count=len(names))
        flags = np.frombuffer(bytes(messages.flags), dtype=np.uint8)[places]
        usable = (flags & (DUP | RETAINED)) == 0
        sizes = np.fromiter(map(len, messages.payloads), dtype=np.int64, count=len(messages))[places]
        usable &= sizes <= self._max_payload_bytes
        known = usable & (codes >= 0)
        known[known] = self._units.checked_s[codes[known] >> 2] > 0
        numbers, kinds = np.where(known, codes >> 2, -1), np.where(known, codes & 3, -1)
        strangers, others = self._recognise(
            names, np.flatnonzero(usable & ~known).tolist(), numbers, kinds, unknown
        )
        others += [names[at] for at in np.flatnonzero(~usable).tolist()]
        part, treatment = Part(arrival, places, numbers), Treatment(len(places))
        if which is None and any(b"/NBIRTH/" in name for name in others):
            leading = [at for at in unit_topics.leading_births(names) if usable[at]]
            if leading:
                return Found(Read(arrival, places[:0], []), [], [], None, leading=leading)
        try:
            self._read(part, kinds, strangers, unit_topics.born_or_dead(others), treatment)
        except sqlite3.OperationalError:
            self._unlearn(treatment, np.ones(len(places), dtype=bool))
            raise
        return self._found(part, treatment, latest_ms, strangers, unit_topics.units(others), followed)

    def _recognise(
        self,
        names: Sequence[bytes],
        new: Sequence[int],
        numbers: Ints,
        kinds: Ints,
        unknown: Callable[[Iterable[str]], set[str]],
    ) -> tuple[dict[int, Topic], list[bytes]]:
        """Parse the topics at the indices `new`, and enter the numbers and kinds of those of admitted units.
        Returns the topics of messages to be held, by index, and the topics that are not a unit's."""
        if not new:
            return {}, []
        parsed = zip(new, unit_topics.parse([names[at] for at in new]), strict=True)
        topics = {at: topic for at, topic in parsed if topic is not None}
        others = [names[at] for at in new if at not in topics] if len(topics) < len(new) else []
        at = np.array(list(topics), dtype=np.int64)
        admitted = self._units.admitted([topic.unit for topic in topics.values()])
        own = self._learn([names[place] for place in topics], list(topics.values()), admitted)
        numbers[at[own]] = admitted[own]
        strangers = {place: topics[place] for place in at[admitted < 0].tolist()}
        absent = unknown([topic.unit for topic in strangers.values()])
        if absent:
            strangers = {place: topic for place, topic in strangers.items() if topic.unit not in absent}
        for place in (*at[own].tolist(), *strangers):
            kinds[place] = topics[place].kind
        return strangers, others

    def _read(
        self,
        part: Part,
        kinds: Ints,
        strangers: dict[int, Topic],
        dirty: set[tuple[str, str]],
        treatment: Treatment,
    ) -> None:
        for history, kind in ((False, LIVE), (True, HISTORIC)):
            if (kinds & ~BIRTH == kind).any():
                self._sparkplug.read(part, kinds, strangers, dirty, treatment, history=history)
        json = kinds == JSON
        if json.any():
            self._read_json(part, json, strangers, treatment)

    def _unlearn(self, treatment: Treatment, which: NDArray[np.bool_]) -> None:
        """Revert the births of these messages, which the plain path decodes one at a time."""
        for learned in treatment.learned:
            mine = which[learned.at]
            if mine.any():
                self._births.learn_rows(learned.before.take(mine))

    def _read_json(
        self, part: Part, mask: NDArray[np.bool_], strangers: dict[int, Topic], treatment: Treatment
    ) -> None:
        if strangers:
            places, payloads = part.places.tolist(), part.arrival.messages.payloads
            held = [
                at
                for at, topic in strangers.items()
                if topic.kind == JSON and payloads[places[at]].startswith(b"{")
            ]
            treatment.counts[held], treatment.held[held] = 1, True
        known = np.flatnonzero(mask & (part.numbers >= 0))
        classes = self._units.classes[part.numbers[known]]
        for class_ in np.unique(classes[classes >= 0]).tolist():
            at = known[classes == class_]
            decoded = json_columns.decode(CLASSES[class_], part.bodies(at))
            treatment.read[at] = True
            treatment.read[at[decoded.rest]] = False
            for group in decoded.groups:
                found = Readings(class_, group.names, at[group.of], group.ts_ms, group.values)
                treatment.readings.append(found)

    def _found(
        self,
        part: Part,
        treatment: Treatment,
        latest_ms: int,
        strangers: dict[int, Topic],
        others: set[str],
        followed: bool,
    ) -> Found:
        groups: list[tuple[Readings, Floats]] = []
        for some in treatment.readings:
            class_name = CLASSES[some.class_]
            checked = check_columns(class_name, some.names, some.ts_ms, some.values, latest_ms, some.bools)
            treatment.reject(some.of[~(checked.good & checked.usual)])
            groups.append((some, checked.values))
        self._keep_in_order(part, treatment, strangers, others)
        self._unlearn(treatment, ~treatment.read)
        newest = _newest(treatment)
        made: list[Group] = []
        for some, values in groups:
            kept = treatment.read[some.of]
            of, ts_ms, names = some.of, some.ts_ms, some.names
            if some.said_ms is not None:
                born_ms = _born(some.ts_ms, some.said_ms, newest[some.of], latest_ms)
                values, names = np.column_stack((values, born_ms)), (*names, BORN)
            if not kept.all():
                of, ts_ms, values = of[kept], ts_ms[kept], values[kept]
            if len(of):
                numbers = part.numbers[of].astype(np.int32)
                columns = Columns(CLASSES[some.class_], self._units.series, numbers, ts_ms, names, values)
                made.append(Group(columns, part.places[of]))
        arrival = part.arrival
        for group in made:
            arrival.counts += np.bincount(group.of, minlength=len(arrival.counts)).astype(np.int32)
        held_at = np.flatnonzero(treatment.held)
        held_places = part.places[held_at]
        arrival.counts[held_places] = treatment.counts[held_at]
        topics = arrival.messages.topics
        held = [
            Held(arrival, place, topics[place], strangers[at])
            for at, place in zip(held_at.tolist(), held_places.tolist(), strict=True)
        ]
        plain = np.flatnonzero(~treatment.read & ~treatment.held)
        is_followed = treatment.followed[plain] | followed
        sequence = None
        if not followed and any(len(at) for at, _, _ in treatment.seqs):
            followed_at, nodes, seqs = (np.concatenate(parts) for parts in zip(*treatment.seqs, strict=True))
            order = np.argsort(followed_at)
            came = part.places[followed_at[order]]
            sequence = SequenceNumbers(self._births.nodes, came, nodes[order], seqs[order])
        born = [each.now.take(mine) for each in treatment.learned if (mine := treatment.read[each.at]).any()]
        births = [some.of for some in treatment.readings if some.said_ms is not None]
        count = int(treatment.read[np.unique(np.concatenate(births))].sum()) if births else 0
        return Found(
            Read(arrival, part.places[treatment.read], made, born),
            list(zip(part.places[plain].tolist(), is_followed.tolist(), strict=True)),
            held,
            sequence,
            count,
        )

    def _keep_in_order(
        self, part: Part, treatment: Treatment, strangers: dict[int, Topic], others: set[str]
    ) -> None:
        """Keep each unit's messages in order: if one of them takes the plain path, all other messages of the
        unit in this arrival do as well. `others`: units without a number that have a message on the plain
        path."""
        plain = ~treatment.read & ~treatment.held
        numbers = [self._units.numbers[unit] for unit in others if unit in self._units.numbers]
        odd = np.union1d(part.numbers[plain & (part.numbers >= 0)], np.array(numbers, dtype=np.int64))
        if len(odd):
            treatment.read &= ~np.isin(part.numbers, odd)
        units = others.union([topic.unit for at, topic in strangers.items() if plain[at]])
        for at, topic in strangers.items() if units else ():
            if topic.unit in units:
                treatment.held[at] = False


def _newest(treatment: Treatment) -> Ints:
    """The time of the newest reading of each message with a birth."""
    found = np.zeros(len(treatment.read), dtype=np.int64)
    for some in treatment.readings:
        if some.said_ms is not None:
            np.maximum.at(found, some.of, some.ts_ms)
    return found


def _born(ts_ms: Ints, said_ms: Ints, newest: Ints, latest_ms: int) -> Floats:
    """Birth times, for the newest reading of each birth: the sample's time if the birth has no valid time."""
    said_ms = np.where((ts_ms <= said_ms) & (said_ms <= latest_ms), said_ms, ts_ms)
    return np.where(ts_ms == newest, said_ms, np.nan)
