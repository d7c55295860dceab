"""Backlog of an edge node: the queue of messages to publish, and the accounting of its readings. No I/O.

Readings stay here until the broker has acknowledged them. When a connection ends, readings without a PUBACK
return to the head of the queue. So a reading leaves only by its PUBACK, or at the bound of the buffer: when
it is full, the oldest reading is dropped and counted.

The first samples of a unit, until they hold all signals, are published only by its birth; in the simulation
that is sample 0. A first sample is dropped and counted when a later one has the same signals, because a birth
has each signal once. Births repeat acknowledged values with their own sample times, so they never carry a
reading that is not counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.wire.commands import Answer
from qilu_contract.wire.marks import Mark

from qilu_devices.edge.device import NO_FIRSTS, Device
from qilu_devices.edge.messages import NodeMessages
from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample
from qilu_devices.transport.disturbance import NO_READING, Sending, Treatment

ALIASES_A_UNIT = 32
MAX_ANSWERS = 1000
"""Maximum number of answers to commands that wait for the host; beyond it, the oldest is dropped."""
NODE_BIRTH, MARK = "NBIRTH", "mark"
Item = Sample | Sending | Answer | Device | str
"""Content of a message in flight: a reading, an answer, a unit's birth, the node's birth or a mark."""


def made_ms(item: Sample | Sending) -> int:
    """Sample time of a reading, whatever its timestamp."""
    return item.made_ms if isinstance(item, Sending) else item.ts_ms


class Backlog:
    """Backlog of one edge node. `offer` adds readings, `next` returns the next message to publish,
    `acknowledged` and `take_back` report the outcome. The owner sets `online`: connected, and the host is
    online."""

    def __init__(self, units: Sequence[Unit], messages: NodeMessages, capacity: int) -> None:
        self._messages, self._capacity = messages, capacity
        # The same distance in every node, so that units at the same place in their nodes share a layout.
        distance = max(ALIASES_A_UNIT, *(len(CATALOGUE[unit.class_name].signals) for unit in units))
        self.devices = {
            unit.id: Device(unit, number * distance, messages.topic("DDATA", unit.id))
            for number, unit in enumerate(units)
        }
        self._buffer: deque[Sample | Sending] = deque()
        self._in_order = True  # the buffer, by when it was made
        self._births: deque[Device] = deque()
        self._answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)
        self._node_birth_due = False
        self._mark_due: int | None = None
        self._late_until_ms = 0  # what was sampled up to here waited for the connection or the host
        self.gone: Callable[[Sample, bool], None] = lambda _sample, _acked: None
        """Called with each undisturbed reading that the broker has acknowledged, and with each that is
        dropped because the unit's birth repeats a later one; the flag says which."""
        self.behind_ms = 0
        """Latest time of readings that the owner has not offered yet; `mark_late` marks them, too."""
        self.online = False
        self.disconnect_due = False
        """Set when a transport fault must break the connection."""

        self.made = 0
        self.acked = 0
        self.dropped = 0
        self.unfit = 0
        """Acknowledged readings that the gateway refuses because of a transport fault."""
        self.births = 0
        self.made_until_ms = 0

    @property
    def pending(self) -> int:
        """Readings made that are neither acknowledged nor dropped."""
        return self.made - self.acked - self.dropped

    @property
    def has_more(self) -> bool:
        """Whether there may be messages to publish."""
        return bool(self._buffer or self._births or self._answers)

    def acked_through_ms(self, in_flight: Sequence[Any]) -> int:
        """Time up to which every reading is acknowledged (or dropped, if `dropped` is above 0), given that
        these items are not."""
        waiting = [made_ms(item) for item in _readings(in_flight)]
        ahead = islice(self._buffer, 1 if self._in_order else None)
        waiting += [made_ms(item) for item in ahead if isinstance(item, Sample) or item.counts]
        firsts = [sample.ts_ms for device in self.devices.values() for sample in device.firsts.values()]
        return min([self.made_until_ms, *(ts_ms - 1 for ts_ms in waiting + firsts)])

    # -- in

    def offer(self, sample: Sample | Sending) -> None:
        """Add a reading; samples of a unit come in time order, the first ones undisturbed."""
        if isinstance(sample, Sending):
            self._offer_disturbed(sample)
            return
        self.made += 1
        self.made_until_ms = sample.ts_ms
        device = self.devices[sample.unit.id]
        if not device.complete:
            replaced = device.take_first(sample)
            if replaced is not None:
                self.dropped += 1
                self.gone(replaced, False)
        else:
            self._buffer.append(sample)
            if len(self._buffer) > self._capacity:
                self._drop_oldest()
        if not device.born and not device.lost:
            self._queue_birth(device)

    def _offer_disturbed(self, sending: Sending) -> None:
        self.made += sending.counts
        self.made_until_ms = max(self.made_until_ms, sending.made_ms)
        self._in_order = False
        self._buffer.append(sending)
        device = self.devices[sending.unit.id]
        if not device.born and not device.lost and sending.treatment is not Treatment.OFFLINE:
            self._queue_birth(device)
        self._drop_oldest()

    def skip(self, sample: Sample | Sending) -> None:
        """Skip a reading that an earlier process has published, with a PUBACK."""
        self.made_until_ms = max(self.made_until_ms, made_ms(sample))
        device = self.devices[sample.unit.id]
        if isinstance(sample, Sending):
            device.lost = sample.treatment is Treatment.OFFLINE or (device.lost and not sample.counts)
            if sample.treatment is Treatment.SHIFTED:
                device.take(sample.sample)
            self.made += sample.counts
            self.acked += sample.counts
            self.unfit += sample.refused is not None
        else:
            device.take(sample)
            device.lost = False
            self.made += 1
            self.acked += 1

    def add_mark(self, number: int) -> None:
        self._mark_due = number

    def add_answer(self, answer: Answer) -> None:
        self._answers.append(answer)

    def add_births(self) -> None:
        """Queue the birth of the node, and of every unit that has a reading and is not lost."""
        for device in self.devices.values():
            device.born = device.complete and not device.lost
        self._births = deque(device for device in self.devices.values() if device.born)
        self._node_birth_due = True

    def mark_late(self) -> None:
        """Mark the waiting readings as late: they have waited for the connection or the host."""
        if self._buffer:
            self._late_until_ms = made_ms(self._buffer[-1])
        self._late_until_ms = max(self._late_until_ms, self.behind_ms)

    def _queue_birth(self, device: Device) -> None:
        """Queue the birth of a unit that has none on this connection, or that the node had lost: with its
        first reading, or with one whose predecessors an earlier process has published."""
        if self.online and device.complete:
            device.born, device.lost = True, False
            self._births.append(device)

    def _drop_oldest(self) -> None:
        while len(self._buffer) > self._capacity:
            item = self._buffer.popleft()
            self.dropped += item.counts if isinstance(item, Sending) else 1

    # -- out

    def next(self, bd_seq: int, limit_ms: int) -> tuple[str, bytes, Item] | None:
        """Topic, payload and item of the next message: births before data, nothing later than `limit_ms`."""
        if self._node_birth_due:
            self._node_birth_due = False
            classes = [device.unit.class_name for device in self.devices.values()]
            return *self._messages.birth(bd_seq, self.made_until_ms, classes), NODE_BIRTH
        if self._mark_due is not None:
            mark, self._mark_due = Mark(self._mark_due), None
            return *self._messages.mark(mark, self.made_until_ms), MARK
        if self._answers:
            answer = self._answers.popleft()
            return *self._messages.answer(answer), answer
        while self._births or (self._buffer and self._buffer[0].ts_ms <= limit_ms):
            if self._births:
                return self._next_birth(limit_ms)
            sample = self._buffer[0]
            device = self.devices[sample.unit.id]
            treatment = sample.treatment if isinstance(sample, Sending) else None
            if device.lost and treatment not in NO_READING:  # the unit is back
                self._queue_birth(device)
                continue
            self._buffer.popleft()
            if treatment is Treatment.DISCONNECT:
                self.disconnect_due = True
                return None
            if treatment is not Treatment.OFFLINE:
                return *self._encode(device, sample), sample
            was_born, device.born, device.lost = device.born, False, True
            if was_born:  # otherwise the unit is not known on this connection
                return *self._messages.device_death(device, sample.ts_ms), sample
        return None

    def _next_birth(self, limit_ms: int) -> tuple[str, bytes, Item] | None:
        device = self._births[0]
        dated = device.dated()
        if max(ts_ms for ts_ms, _ in dated) > limit_ms:
            return None
        self._births.popleft()
        self.births += 1
        return *self._messages.device_birth(device, dated), device

    def _encode(self, device: Device, sample: Sample | Sending) -> tuple[str, bytes]:
        late = made_ms(sample) <= self._late_until_ms
        if isinstance(sample, Sending):
            return self._messages.disturbed(device, sample, late)
        return self._messages.reading(device, sample, late)

    # -- what became of it

    def acknowledged(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Sample):
                self.acked += 1
                self.devices[item.unit.id].take(item)
                self.gone(item, True)
            elif isinstance(item, Sending):
                self.acked += item.counts
                self.unfit += item.refused is not None
                if item.treatment is Treatment.SHIFTED:  # the others carry no value, or none that is newer
                    self.devices[item.unit.id].take(item.sample)
            elif isinstance(item, Device):
                self.acked += len(item.firsts)
                for sample in item.firsts.values():
                    self.gone(sample, True)
                item.firsts = NO_FIRSTS

    def take_back(self, items: Sequence[Any]) -> None:
        """The connection ended before these items were acknowledged: readings return to the head of the
        buffer, in time order."""
        answers = [item for item in items if isinstance(item, Answer)]
        self._answers = deque([*answers, *self._answers], MAX_ANSWERS)
        self._buffer.extendleft(reversed(_readings(items)))
        self.forget_births()
        self._drop_oldest()

    def forget_births(self) -> None:
        """Drop queued births and marks, which are invalid on another connection."""
        self._births.clear()
        self._node_birth_due, self._mark_due = False, None


def _readings(items: Sequence[Any]) -> list[Sample | Sending]:
    return [item for item in items if isinstance(item, Sample | Sending)]
