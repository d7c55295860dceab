"""How the overall equipment effectiveness (OEE) of a class follows from its signals, as data
(`data/effectiveness.csv`), for classes that report states and cycles.

Terms of ISO 22400-2: availability is the actual production time over the planned busy time, effectiveness the
planned run time of the items made over the actual production time, and the quality ratio the good items over
all; OEE is their product. No class reports a shift plan, so that all observed time counts as planned busy
time: nights and weekends lower the availability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.tables import read_table

MAX_STOPS = 3
"""The most reasons for stops that a class reports: fields `stop_0_s` to `stop_2_s` of the roll-ups."""

STOP_FIELDS = tuple(f"stop_{number}_s" for number in range(MAX_STOPS))

SUM_FIELDS = ("planned_s", "run_s", "ideal_s", "good_s")
"""The other sums of seconds from which the ratios follow."""


@dataclass(frozen=True, slots=True)
class Effectiveness:
    """Signals of one class from which its OEE is computed; an empty name: the class has no such signal."""

    class_name: str
    moves: str
    """The unit is at work while this signal is above 0."""
    hold_s: float
    """Longest standstill that belongs to a cycle, such as the change of a part; a longer one is a stop."""
    counter: str
    """Counts the items made."""
    cycle: str
    """Duration of the last cycle in seconds, where nothing counts the items."""
    ideal_s: tuple[float, ...]
    """Planned run time of an item, by variant; empty: production is at full speed while the unit works."""
    variant: str
    """Signal that holds the variant of the item being made: an index of `ideal_s`."""
    bad: str
    """An item during which this signal is above 0 is not good. Without it all items count as good."""
    stops: tuple[str, ...]
    """Reasons of stops: either `bad` alone, or counts of stops of several kinds."""
    mark: str
    source: str

    @property
    def signals(self) -> tuple[str, ...]:
        """All signals that the computation reads, each once."""
        named = (self.moves, self.counter, self.cycle, self.variant, self.bad, *self.stops)
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def assumed(self) -> tuple[str, ...]:
        """Assumptions behind the figures, as sentences for the user."""
        found = ["Planned busy time is all time with readings, as no shift plan is known."]
        if not self.ideal_s:
            found.append("Effectiveness is 1: the rated speed of a unit is not known.")
        if not self.bad:
            found.append("The quality ratio is 1: the class does not report bad items.")
        if self.hold_s:
            found.append(f"A standstill of up to {self.hold_s:g} s belongs to a cycle.")
        if self.ideal_s:
            found.append(f"Planned run time ({self.mark}): {self.source}.")
        return tuple(found)


def _load() -> Mapping[str, Effectiveness]:
    found = {}
    for row in read_table("effectiveness.csv"):
        rule = Effectiveness(
            class_name=row["class"],
            moves=row["moves"],
            hold_s=float(row["hold_s"]),
            counter=row["counter"],
            cycle=row["cycle"],
            ideal_s=tuple(map(float, row["ideal_s"].split())),
            variant=row["variant"],
            bad=row["bad"],
            stops=tuple(row["stops"].split()),
            mark=row["mark"],
            source=row["source"],
        )
        known = {signal.name for signal in CATALOGUE[rule.class_name].signals}
        if unknown := [name for name in rule.signals if name not in known]:
            raise ValueError(f"effectiveness.csv: {rule.class_name} has no signal {unknown[0]!r}")
        if len(rule.stops) > MAX_STOPS:
            raise ValueError(f"effectiveness.csv: {rule.class_name} has more than {MAX_STOPS} reasons")
        found[rule.class_name] = rule
    return found


EFFECTIVENESS: Mapping[str, Effectiveness] = _load()
