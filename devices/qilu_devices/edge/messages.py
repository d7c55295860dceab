"""Encoder for the messages of one edge node: topics, payloads, and Sparkplug's sequence numbers."""

from __future__ import annotations

from collections.abc import Iterable

from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.wire import topics
from qilu_contract.wire.commands import Answer
from qilu_contract.wire.marks import Mark

from qilu_devices.edge import payloads
from qilu_devices.edge.device import Device
from qilu_devices.simulation import Sample
from qilu_devices.transport.disturbance import Sending, Treatment

Encoded = tuple[str, bytes]
"""Topic and payload."""
FORGED_STEP = 100
"""How far ahead a forged sequence number is."""


class NodeMessages:
    """Encodes the messages of one edge node. Every method except `topic`, `death` and `birth` consumes a
    sequence number. A `historical` node publishes on the history topics, and marks all data as historical."""

    def __init__(self, group: str, node: str, historical: bool) -> None:
        self._group, self._node, self._historical = group, node, historical
        self._root = topics.HISTORY if historical else ""
        self._seq = 0

    def topic(self, type_: topics.MessageType, unit: str | None = None) -> str:
        return self._root + topics.sparkplug(type_, self._group, self._node, unit)

    def death(self, bd_seq: int, ts_ms: int) -> Encoded:
        return self.topic("NDEATH"), payloads.node_death(bd_seq, ts_ms)

    def birth(self, bd_seq: int, ts_ms: int, class_names: Iterable[str]) -> Encoded:
        """The node's birth, with the Templates of its units' classes; sequence numbers restart from 0."""
        self._seq = 0
        return self.topic("NBIRTH"), payloads.node_birth(bd_seq, ts_ms, 0, class_names)

    def mark(self, mark: Mark, ts_ms: int) -> Encoded:
        return self.topic("NDATA"), payloads.mark(mark, ts_ms, self._next_seq())

    def answer(self, answer: Answer) -> Encoded:
        return self.topic("NDATA"), payloads.answer(answer, self._next_seq())

    def device_birth(self, device: Device, dated: list[payloads.Dated]) -> Encoded:
        body = payloads.device_birth(device.equipment, device.alias, dated, self._next_seq())
        return self.topic("DBIRTH", device.unit.id), body

    def device_death(self, device: Device, ts_ms: int) -> Encoded:
        return self.topic("DDEATH", device.unit.id), payloads.device_death(ts_ms, self._next_seq())

    def reading(self, device: Device, sample: Sample, late: bool) -> Encoded:
        """`late`: it waited for the connection or the host, and is marked as historical."""
        historical = self._historical or late
        layout = payloads.layout(sample.unit.class_name, sample.shape, device.alias, historical)
        return device.data_topic, layout.encode(sample, self._next_seq())

    def disturbed(self, device: Device, sending: Sending, late: bool) -> Encoded:
        """A reading changed by a transport fault. Garbage has no sequence number."""
        sample = sending.sample
        if sending.treatment is Treatment.GARBAGE:
            return self.topic("NDATA"), payloads.garbage(sample)
        if sending.treatment is Treatment.WRONG_TYPE:
            seq = self._next_seq()
            return device.data_topic, payloads.data(sample, device.alias, seq, False, as_text=sending.signal)
        if sending.treatment is Treatment.SPOOFED:
            return self._spoofed(sending)
        if sending.treatment is Treatment.REPLAYED:
            self._seq -= 1  # `reading` takes the last one again
        elif sending.treatment is Treatment.FORGED:
            seq, self._seq = self._seq, self._seq + FORGED_STEP
            forged = self.reading(device, sample, late)
            self._seq = seq
            return forged
        return self.reading(device, sample, late or sending.treatment is Treatment.LATE)

    def _spoofed(self, sending: Sending) -> Encoded:
        """A reading for a unit that is not the node's, or not in the node's county. It needs no birth."""
        unit, target = sending.unit, sending.target
        assert target is not None
        elsewhere = target == unit.id
        group = _other_county(self._group) if elsewhere else self._group
        topic = self._root + topics.sparkplug("DDATA", group, self._node, target)
        seq = 0 if elsewhere else self._next_seq()  # sequence numbers are counted by group
        return topic, payloads.named_data(sending.sample, seq)

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) % 256
        return self._seq


def _other_county(code: str) -> str:
    return next(other for other in COUNTIES if other != code)
