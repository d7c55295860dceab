"""What a class says about the values of its units' readings: which are good, and how they are stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from qilu_contract import clock
from qilu_contract.catalogue import CATALOGUE, Signal
from qilu_contract.errors import BadReading, Reason
from qilu_contract.readings import Reading, Value

SIGNALS: Mapping[str, Mapping[str, Signal]] = {
    name: {signal.name: signal for signal in class_.signals} for name, class_ in CATALOGUE.items()
}
"""Signals by name, by class."""
INT64 = range(-(2**63), 2**63)
MOST = 2.0**52
"""From here on a float is whole already."""


def check_all(
    class_name: str, readings: Sequence[Reading], latest_ms: int
) -> list[dict[str, Value] | BadReading]:
    """For each of the readings what `check` returns, or raises. Those that hold the same signals are rounded
    together, at a third of the cost."""
    found: list[dict[str, Value] | BadReading | None] = [None] * len(readings)
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, reading in enumerate(readings):
        alike.setdefault(tuple(reading.values), []).append(place)
    for names, places in alike.items():
        steps = _steps(class_name, names)
        rows = [tuple(readings[place].values.values()) for place in places]
        if steps is None or not _FLOAT.issuperset(map(type, chain.from_iterable(rows))):
            continue
        with np.errstate(over="ignore"):
            scaled = np.array(rows, dtype=np.float64) * steps
        good = np.all(np.abs(scaled) < MOST, axis=1).tolist()  # what is not finite is in no range
        rounded = (np.rint(scaled) / steps + 0.0).tolist()  # no zero below zero
        for place, values, is_good in zip(places, rounded, good, strict=True):
            if is_good and 0 <= readings[place].ts_ms <= latest_ms:
                found[place] = dict(zip(names, values, strict=True))
    return [
        _checked(reading, SIGNALS.get(class_name, {}), latest_ms) if values is None else values
        for reading, values in zip(readings, found, strict=True)
    ]


_FLOAT = frozenset((float,))


@lru_cache(maxsize=10_000)
def _steps(class_name: str, names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Steps per unit of signals that are all known and floats."""
    signals = SIGNALS.get(class_name, {})
    if not names or not all(name in signals and signals[name].type == "float" for name in names):
        return None
    return np.array([signals[name].steps_per_unit for name in names])


def _checked(
    reading: Reading, signals: Mapping[str, Signal], latest_ms: int
) -> dict[str, Value] | BadReading:
    try:
        return check(reading, signals, latest_ms)
    except BadReading as bad:
        return bad


def check(reading: Reading, signals: Mapping[str, Signal], latest_ms: int) -> dict[str, Value]:
    """The reading's values as they are stored: of the catalogue's types, rounded to its resolution (float32
    on the wire comes back as the decimal that was meant). Raises BadReading.
    """
    if not 0 <= reading.ts_ms <= latest_ms:
        ahead = reading.ts_ms - latest_ms + clock.MAX_AHEAD_MS
        raise BadReading(Reason.BAD_TIMESTAMP, f"{reading.ts_ms} lies {ahead / 60_000:.0f} min in the future")
    values: dict[str, Value] = {}
    for name, value in reading.values.items():
        signal = signals.get(name)
        if signal is None:
            raise BadReading(Reason.UNKNOWN_SIGNAL, f"{name[:60]!r} is no signal of its class")
        given = type(value)
        if signal.type == "float" and (given is float or given is int):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if not math.isfinite(number):
                raise BadReading(Reason.NOT_FINITE, f"{name} is {number}")
            values[name] = signal.round(number)
        elif (given is bool and signal.type == "bool") or (
            given is int and signal.type == "int" and value in INT64
        ):
            values[name] = value
        elif given is float and not math.isfinite(value):
            raise BadReading(Reason.NOT_FINITE, f"{name} is {value}")
        else:
            raise BadReading(
                Reason.WRONG_TYPE, f"{name} is {signal.type}, and {str(value)[:40]!r} is {given.__name__}"
            )
    return values
