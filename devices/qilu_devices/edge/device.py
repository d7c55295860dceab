"""State of a unit in its edge node."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from qilu_contract.catalogue.classes import CATALOGUE

from qilu_devices.edge.payloads import Dated
from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample, Shape

NO_FIRSTS: Mapping[Shape, Sample] = MappingProxyType({})
"""One for all units, which nearly always have none."""


class Device:
    """State of a unit. `last`: the latest acknowledged sample of each shape; the first samples until they are
    acknowledged, None before there are any. `complete`: they hold all signals, as sample 0 of the simulation
    does, so the unit can be born. `firsts`: those of `last` that only its birth publishes, until it is
    acknowledged. `born`: its birth was published on this connection, or is queued. `lost`: the node has
    published its death, and publishes nothing for it until there is a new reading."""

    __slots__ = ("alias", "born", "complete", "data_topic", "equipment", "firsts", "last", "lost", "unit")

    def __init__(self, unit: Unit, alias: int, data_topic: str) -> None:
        self.unit = unit
        self.equipment = CATALOGUE[unit.class_name]
        self.alias = alias
        self.data_topic = data_topic
        self.last: dict[Shape, Sample] | None = None
        self.firsts: Mapping[Shape, Sample] = NO_FIRSTS
        self.born = self.lost = self.complete = False

    def take_first(self, sample: Sample) -> Sample | None:
        """Take a sample that only the birth publishes. Returns the one that it replaces, which no birth will
        publish."""
        replaced = self.firsts.get(sample.shape)
        self.firsts = {**self.firsts, sample.shape: sample}
        self.take(sample)
        return replaced

    def take(self, sample: Sample) -> None:
        if self.last is None:
            self.last = {}
        self.last[sample.shape] = sample
        if not self.complete:
            known = {position for shape in self.last for position in shape.positions}
            self.complete = len(known) == len(self.equipment.signals)

    def dated(self) -> list[Dated]:
        """Each signal's last value and its time, for a complete unit."""
        assert self.last is not None
        values: dict[int, Dated] = {}
        for sample in sorted(self.last.values(), key=lambda sample: sample.ts_ms):
            for position, value in zip(sample.shape.positions, sample.values, strict=True):
                values[position] = (sample.ts_ms, value)
        return [values[position] for position in range(len(self.equipment.signals))]
