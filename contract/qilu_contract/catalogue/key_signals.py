"""Contents of roll-ups: the key signals of each class, and the bin edges of their distributions."""

from __future__ import annotations

from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass, Signal
from qilu_contract.catalogue.limits import LIMITS

MINUTE_MS = 60_000

LEVELS = ("province", "city", "county", "industry")
"""Levels of places in roll-ups: their codes are those of GB/T 2260, an industry's that of GB/T 4754."""

CUMULATIVE = ("energy_kWh", "co2_kg")
"""Signals that only grow, like a meter: their roll-up holds the increment of the minute."""

BINS = 10
"""Steps of a distribution, from the signal's low to its high."""

BIN_FIELDS = tuple(f"bin_{number}" for number in range(BINS))

_FIRST_SIGNALS = 4
"""A class's first signals are its key signals (the catalogue lists the most important first), in addition to
those with limits and the cumulative ones. Each costs one point per minute and place."""


def is_cumulative(signal: Signal) -> bool:
    return signal.name in CUMULATIVE


def key_signals(class_: EquipmentClass) -> tuple[Signal, ...]:
    """The signals that are rolled up; the base signal is the first, so that its row counts every regular
    reading."""
    limited = {limit.signal for limit in LIMITS[class_.name]}
    chosen = [signal for signal in class_.signals if signal.type != "bool"]
    first = {signal.name for signal in chosen[:_FIRST_SIGNALS]} | {class_.base_signal.name}
    kept = [s for s in chosen if s.name in first or s.name in limited or is_cumulative(s)]
    return tuple(sorted(kept, key=lambda signal: signal.name != class_.base_signal.name))


KEY_SIGNALS: dict[str, tuple[Signal, ...]] = {name: key_signals(class_) for name, class_ in CATALOGUE.items()}


def bin_edges(signal: Signal) -> list[float]:
    """The lower edges of the bins and the upper edge of the last: BINS + 1 values."""
    step = (signal.high - signal.low) / BINS
    return [round(signal.low + number * step, 6) for number in range(BINS + 1)]
