"""State of a unit in its edge node."""

from __future__ import annotations

from qilu_contract.catalogue.classes import CATALOGUE

from qilu_devices.edge.payloads import Dated
from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample, Shape


class Device:
    """State of a unit. `last`: the latest acknowledged sample of each shape; sample 0 until it is
    acknowledged, None before there is one. `first_pending`: sample 0 is not acknowledged yet. `born`: its
    birth was published on this connection, or is queued. `lost`: the node has published its death, and
    publishes nothing for it until there is a new reading."""

    __slots__ = ("alias", "born", "data_topic", "equipment", "first_pending", "last", "lost", "unit")

    def __init__(self, unit: Unit, alias: int, data_topic: str) -> None:
        self.unit = unit
        self.equipment = CATALOGUE[unit.class_name]
        self.alias = alias
        self.data_topic = data_topic
        self.last: dict[Shape, Sample] | None = None
        self.first_pending = False
        self.born = self.lost = False

    def take(self, sample: Sample) -> None:
        if self.last is None:
            self.last = {}
        self.last[sample.shape] = sample

    def dated(self) -> list[Dated]:
        """Each signal's last value and its time. Sample 0 has all signals."""
        assert self.last is not None
        values: dict[int, Dated] = {}
        for sample in sorted(self.last.values(), key=lambda sample: sample.ts_ms):
            for position, value in zip(sample.shape.positions, sample.values, strict=True):
                values[position] = (sample.ts_ms, value)
        return [values[position] for position in range(len(self.equipment.signals))]
