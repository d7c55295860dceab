"""Applies transport faults to readings between the simulation and the edge nodes. Without faults every
reading passes unchanged.

The first reading of a unit, which its birth carries, is never changed.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum, auto
from functools import cache, partial
from itertools import count
from typing import NamedTuple, TypeVar

import numpy as np
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import Reason

from qilu_devices.fleet import Unit
from qilu_devices.simulation import Moment, Sample
from qilu_devices.transport.episodes import Attack, Episode, Kind, Timeline, TransportPlan

_T = TypeVar("_T")


class Treatment(Enum):
    """How an edge node must treat a reading."""

    SHIFTED = auto()  # a reading with a shifted timestamp
    LATE = auto()  # a reading marked as historical
    OVERTAKEN = auto()  # a reading that comes after a later one
    COPY = auto()  # a reading that was sent already
    WRONG_TYPE = auto()  # a reading with one signal as text: refused whole
    GARBAGE = auto()  # no payload at all, on the node's own topic
    DISCONNECT = auto()  # nothing to send: the connection is lost
    OFFLINE = auto()  # the unit's death: the node has lost it, until something of it is sent again
    SPOOFED = auto()  # the reading under the node's topic for another enterprise's unit: refused
    REPLAYED = auto()  # a reading that was sent already, with the same sequence number
    FORGED = auto()  # a reading that was sent already, with a sequence number that was not its turn


NO_READING = frozenset({Treatment.GARBAGE, Treatment.DISCONNECT, Treatment.OFFLINE, Treatment.SPOOFED})
"""Treatments that carry no reading of the unit."""
_REFUSED = {
    Treatment.WRONG_TYPE: Reason.WRONG_TYPE,
    Treatment.GARBAGE: Reason.BAD_PAYLOAD,
    Treatment.SPOOFED: Reason.WRONG_OWNER,
}
_NOT_COUNTED = frozenset(
    {Treatment.COPY, Treatment.DISCONNECT, Treatment.OFFLINE, Treatment.REPLAYED, Treatment.FORGED}
)
FLOOD_MESSAGES, FLOOD_MS = 50, 10_000
"""A flood adds so many messages before each reading, for the beginning of its episode."""


class Sending(NamedTuple):
    """A disturbed reading, or an event, for an edge node. `sample` is the reading to be sent; for garbage,
    disconnection and death, the reading that they precede. `made_ms`: sample time; `due_ms`: time of sending.
    `signal`: the one with a wrong type. `target`: the unit that a spoofed message names."""

    sample: Sample
    made_ms: int
    due_ms: int
    treatment: Treatment
    signal: str | None = None
    target: str | None = None

    @property
    def unit(self) -> Unit:
        return self.sample.unit

    @property
    def ts_ms(self) -> int:
        return self.sample.ts_ms

    @property
    def refused(self) -> Reason | None:
        """The reason why a gateway dead-letters it, if it does."""
        return _REFUSED.get(self.treatment)

    @property
    def counts(self) -> bool:
        """Whether it counts as a reading, stored or dead-lettered."""
        return self.treatment not in _NOT_COUNTED


def outcome(item: Sample | Sending) -> Sample | Reason | None:
    """Final outcome: a reading to be stored, a dead letter, or None."""
    if isinstance(item, Sample):
        return item
    return item.refused or (item.sample if item.counts else None)


class Disturbance:
    """The transport faults of some units from a run's start on: a pure function of plan, seed, start and
    units. Moments must be passed once, in time order. It holds late readings: no more than the fleet makes in
    the longest episode.
    """

    def __init__(self, units: Sequence[Unit], seed: int, start_ms: int, plan: TransportPlan) -> None:
        self._start_ms = start_ms
        node_ids = list(dict.fromkeys(unit.enterprise.id for unit in units))
        node_places = {id_: place for place, id_ in enumerate(node_ids)}
        self._places = {unit.id: (place, node_places[unit.enterprise.id]) for place, unit in enumerate(units)}
        unit_ids = [unit.id for unit in units]
        self._timelines = {
            kind: Timeline(kind, fault, seed, node_ids if kind.is_of_node else unit_ids)
            for kind, fault in plan.items()
        }
        self._quiet_until: dict[str, int] = {}  # by unit: until then its readings pass as they are
        self._episodes: dict[tuple[Kind, int], Episode] = {}
        self._attacks = Attacks(units if Kind.ATTACK in plan else ())
        self._stuck: dict[str, tuple[Episode, float]] = {}
        self._late: list[tuple[int, int, Sending]] = []
        self._order = count()
        self._overtaken: dict[str, Sending] = {}
        self._truth: list[Episode] = []

    def through(self, moment: Moment) -> Iterable[Sample | Sending]:
        """The readings and events for edge nodes at this moment, in order."""
        return self._through(moment) if self._timelines else moment.samples

    def rest(self) -> Iterator[Sending]:
        """Release the readings that are still held when the run ends."""
        while self._late:
            yield heapq.heappop(self._late)[2]
        yield from self._overtaken.values()
        self._overtaken.clear()

    def held(self) -> dict[str, int]:
        """Sample time of the oldest held reading, by edge node."""
        oldest: dict[str, int] = {}
        for sending in (*(entry[2] for entry in self._late), *self._overtaken.values()):
            node = sending.unit.enterprise.id
            oldest[node] = min(sending.made_ms, oldest.get(node, sending.made_ms))
        return oldest

    def ground_truth(self) -> list[Episode]:
        """The episodes until now, in the order of start, kind, node and unit."""
        touched = (episode for episode in self._truth if episode.readings)
        return sorted(touched, key=lambda each: (each.start_ms, each.kind, each.node, each.unit or ""))

    def _through(self, moment: Moment) -> Iterator[Sample | Sending]:
        while self._late and self._late[0][0] <= moment.ts_ms:
            yield heapq.heappop(self._late)[2]
        for sample in moment.samples:
            for item in self.judge(sample):
                before = self._overtaken.get(item.unit.id)
                treatment = item.treatment if isinstance(item, Sending) else None
                if isinstance(item, Sending) and treatment is Treatment.LATE:
                    heapq.heappush(self._late, (item.due_ms, next(self._order), item))
                elif isinstance(item, Sending) and treatment is Treatment.OVERTAKEN and before is None:
                    self._overtaken[item.unit.id] = item
                elif before is None or treatment in NO_READING:
                    yield item
                else:
                    yield (
                        item._replace(treatment=Treatment.SHIFTED)
                        if isinstance(item, Sending) and treatment is Treatment.OVERTAKEN
                        else item
                    )
                    yield self._overtaken.pop(item.unit.id)

    def judge(self, sample: Sample) -> Sequence[Sample | Sending]:
        """Disturb a reading; returns the resulting readings and events, whenever they are sent. To be called
        once for each reading, in time order."""
        made_ms = sample.ts_ms
        if not self._timelines or made_ms == self._start_ms or self._is_quiet(sample.unit.id, made_ms):
            return (sample,)
        found: list[Sample | Sending] = []
        storm = self._episode(Kind.RECONNECT_STORM, sample)
        if storm is not None and not storm.readings:
            storm.readings = 1
            found.append(Sending(sample, made_ms, made_ms, Treatment.DISCONNECT))
        if self._touched(Kind.GARBAGE_PAYLOAD, sample):
            found.append(Sending(sample, made_ms, made_ms, Treatment.GARBAGE))
        attack = self._episode(Kind.ATTACK, sample)
        if attack is not None:
            found += self._attacks.before(attack, sample)
        if episode := self._touched(Kind.OFFLINE, sample):
            if episode.readings == 1:
                found.append(Sending(sample, made_ms, made_ms, Treatment.OFFLINE))
            return found
        if self._touched(Kind.MISSING, sample):
            return found
        sent = self._stuck_at(sample)
        if attack is not None:
            sent = self._attacks.injected(attack, sent)
        sent = self._shifted(sent, made_ms)
        if episode := self._touched(Kind.WRONG_TYPE, sample):
            found.append(Sending(sent, made_ms, made_ms, Treatment.WRONG_TYPE, episode.signal))
        elif episode := self._touched(Kind.LATE, sample):
            found.append(Sending(sent, made_ms, episode.end_ms, Treatment.LATE))
        elif self._touched(Kind.OUT_OF_ORDER, sample):
            found.append(Sending(sent, made_ms, made_ms, Treatment.OVERTAKEN))
        else:
            shifted = sent.ts_ms != made_ms
            found.append(Sending(sent, made_ms, made_ms, Treatment.SHIFTED) if shifted else sent)
            if attack is not None:
                found += self._attacks.after(attack, sent, made_ms)
            if self._touched(Kind.DUPLICATED, sample):
                found.append(Sending(sent, made_ms, made_ms, Treatment.COPY))
        return found

    def _is_quiet(self, unit_id: str, ts_ms: int) -> bool:
        """Whether no episode of any kind applies. Called for every reading, so most results are cached."""
        if ts_ms < self._quiet_until.get(unit_id, 0):
            return True
        places = self._places[unit_id]
        until = min(each.quiet_until(places[each.is_of_node], ts_ms) for each in self._timelines.values())
        self._quiet_until[unit_id] = until
        return ts_ms < until

    def _stuck_at(self, sample: Sample) -> Sample:
        """The sample with the value of a stuck sensor: that of the episode's first reading."""
        episode = self._episode(Kind.STUCK_SENSOR, sample)
        if episode is None or episode.signal is None:
            return sample
        place = sample.shape.names.index(episode.signal)
        stuck = self._stuck.get(sample.unit.id)
        if stuck is None or stuck[0] is not episode:
            self._stuck[sample.unit.id] = (episode, sample.values[place])
            return sample
        episode.readings += 1
        values = list(sample.values)
        values[place] = stuck[1]
        return sample._replace(values=tuple(values))

    def _shifted(self, sample: Sample, made_ms: int) -> Sample:
        episode = self._touched(Kind.CLOCK_SKEW, sample)
        if episode is None:
            return sample
        ts_ms = made_ms + episode.shift_at(made_ms)
        # Only the first timestamp may not be a whole step; an odd remainder avoids it.
        return sample._replace(ts_ms=ts_ms + (ts_ms == self._start_ms))

    def _touched(self, kind: Kind, sample: Sample) -> Episode | None:
        episode = self._episode(kind, sample)
        if episode is not None:
            episode.readings += 1
        return episode

    def _episode(self, kind: Kind, sample: Sample) -> Episode | None:
        """The episode of this kind that the reading lies in."""
        timeline = self._timelines.get(kind)
        if timeline is None:
            return None
        place = self._places[sample.unit.id][timeline.is_of_node]
        start_ms = timeline.start(place, sample.ts_ms)
        if start_ms is None:
            return None
        episode = self._episodes.get((kind, place))
        if episode is None or episode.start_ms != start_ms:
            episode = self._begin(kind, timeline, place, sample, start_ms)
        return episode

    def _begin(self, kind: Kind, timeline: Timeline, place: int, sample: Sample, start_ms: int) -> Episode:
        unit = sample.unit
        owner = None if kind.is_of_node else unit.id
        end_ms = start_ms + timeline.fault.for_ms
        episode = Episode(kind, owner, unit.enterprise.id, start_ms, end_ms)
        if kind in (Kind.STUCK_SENSOR, Kind.WRONG_TYPE):
            episode.signal = _one_of(_regular(unit.class_name), timeline.draw("signal", place, start_ms))
        elif kind is Kind.CLOCK_SKEW:
            episode.shift_ms = timeline.shift_ms(place, start_ms)
            episode.drift_ppm = timeline.fault.drift_ppm
        elif kind is Kind.ATTACK:
            self._attacks.begin(episode, unit, partial(timeline.draw, place=place, ts_ms=start_ms))
        self._episodes[kind, place] = episode
        self._truth.append(episode)
        return episode


class Attacks:
    """Messages of attackers who have the credentials of edge nodes (`Attack`), in episodes of whole nodes."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._by_county: dict[str, list[Unit]] = defaultdict(list)
        for unit in units:
            self._by_county[unit.enterprise.county].append(unit)
        self._draws: dict[str, tuple[str | None, float]] = {}
        """Spoofed unit and relative height of injected values, by node."""

    def begin(self, episode: Episode, unit: Unit, draw: Callable[[str], float]) -> None:
        episode.method = _one_of(tuple(Attack), draw("method"))
        near = self._by_county[unit.enterprise.county]
        first = int(draw("target") * len(near))
        others = (each.id for each in near[first:] + near[:first] if each.enterprise.id != episode.node)
        self._draws[episode.node] = next(others, None), draw("value")

    def before(self, episode: Episode, sample: Sample) -> Sequence[Sending]:
        """Messages before a reading. Where the county has no other enterprise, the node's own unit is
        spoofed, in another county."""
        ts_ms = sample.ts_ms
        if episode.method is Attack.SPOOF:
            target = self._draws[episode.node][0] or sample.unit.id
            found = [Sending(sample, ts_ms, ts_ms, Treatment.SPOOFED, target=target)]
        elif episode.method is Attack.FLOOD and ts_ms < episode.start_ms + FLOOD_MS:
            found = [Sending(sample, ts_ms, ts_ms, Treatment.GARBAGE)] * FLOOD_MESSAGES
        else:
            found = []
        episode.readings += len(found)
        return found

    def injected(self, episode: Episode, sample: Sample) -> Sample:
        """The sample with the injected value: one of the class's base signal, the same for the episode,
        evenly drawn from twice its range around the range's middle, so that half of them lie within."""
        signal = CATALOGUE[sample.unit.class_name].base_signal
        if episode.method is not Attack.INJECT or signal.type != "float":
            return sample
        episode.readings += 1
        episode.signal = signal.name
        height = 2.0 * self._draws[episode.node][1] - 0.5
        value = signal.low + height * (signal.high - signal.low)
        values = list(sample.values)
        values[sample.shape.names.index(signal.name)] = float(signal.round_all(np.array([value]))[0]) + 0.0
        return sample._replace(values=tuple(values))

    def after(self, episode: Episode, sent: Sample, made_ms: int) -> Sequence[Sending]:
        """Messages after a reading that was sent as it is."""
        treatments = {Attack.REPLAY: Treatment.REPLAYED, Attack.FORGE: Treatment.FORGED}
        if episode.method not in treatments:
            return ()
        episode.readings += 1
        return (Sending(sent, made_ms, made_ms, treatments[episode.method]),)


def _one_of(choices: Sequence[_T], draw: float) -> _T:
    return choices[int(draw * len(choices))]


@cache
def _regular(class_name: str) -> tuple[str, ...]:
    """The signals that every reading holds."""
    equipment = CATALOGUE[class_name]
    base_s = equipment.base_interval_s
    return tuple(signal.name for signal in equipment.signals if signal.interval_s == base_s)
