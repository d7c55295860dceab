"""Checks readings of generic units, whose signals are learned from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from qilu_contract.catalogue.generic import COUNTED, signal_name
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading, Value
from qilu_contract.wire.json_payload import describe
from qilu_contract.wire.sparkplug import Unreadable

from qilu_gateway.admit.learned_signals import LearnedSignals
from qilu_gateway.read.checking import check_time


def check_generic(
    reading: Reading, signals: LearnedSignals, latest_ms: int, remark: Callable[[Remark, str], None]
) -> dict[str, Value]:
    """The reading's values in the form in which they are stored: floats under their signals' names, and the
    number of signals. Values that are no numbers, and signals beyond the bounds, are left out; `remark` is
    called for each. Raises BadReading when no value is left."""
    check_time(reading.ts_ms, latest_ms)
    values: dict[str, Value] = {}
    left_out: list[tuple[Remark, str]] = []
    for sent, value in reading.values.items():
        try:
            name, number = signal_name(sent), _number(value)
        except ValueError as error:
            kind = Remark.UNKNOWN_SIGNAL if type(value) in (int, float, bool) else Remark.WRONG_TYPE
            left_out.append((kind, f"{sent[:60]!r}: {error}"))
            continue
        if name in values:
            left_out.append((Remark.UNKNOWN_SIGNAL, f"{sent[:60]!r} is {name} as well: rename one of them"))
        elif reason := signals.accept(reading.unit, name):
            left_out.append((Remark.UNKNOWN_SIGNAL, f"{sent[:60]!r}: {reason}"))
        else:
            values[name] = number
    if not values:
        kind, detail = left_out[0]
        raise BadReading(Reason(kind), detail)
    for kind, detail in left_out:
        remark(kind, detail)
    values[COUNTED] = float(len(values))
    return values


def check_all_generic(
    readings: Sequence[Reading],
    signals: LearnedSignals,
    latest_ms: int,
    remark: Callable[[int, Remark, str], None],
) -> list[dict[str, Value] | BadReading]:
    """`check_generic` for each reading: results or exceptions. `remark` also receives the reading's index."""
    found: list[dict[str, Value] | BadReading] = []
    for place, reading in enumerate(readings):
        try:
            found.append(check_generic(reading, signals, latest_ms, partial(remark, place)))
        except BadReading as bad:
            found.append(bad)
    return found


def learn_units(unit: str, units: Mapping[str, str], signals: LearnedSignals) -> None:
    """Note the units of measurement that a birth gives by the names of its metrics."""
    for sent, measured_in in units.items():
        try:
            signals.measured(unit, signal_name(sent), measured_in[:32])
        except ValueError:
            continue


def _number(value: object) -> float:
    """Raises ValueError for what is no finite number."""
    if type(value) not in (int, float, bool):
        said = value.detail if isinstance(value, Unreadable) else describe(value)
        hint = ": write numbers without quotes" if type(value) is str else ""
        raise ValueError(f"it is {said}, and a generic device sends numbers and booleans{hint}")
    try:
        number = float(value)  # type: ignore[arg-type]  # one of three types; mypy does not follow `not in`
    except OverflowError:
        raise ValueError("it is a number that does not fit 64 bits") from None
    if not math.isfinite(number):
        raise ValueError(f"it is {number}")
    short = np.float32(number) if abs(number) < _FLOAT32 else None
    if short is not None and float(short) == number and not number.is_integer():
        return float(str(short))  # from 32 bits: the decimal that was meant
    return number + 0.0  # no negative zero


_FLOAT32 = 3e38
