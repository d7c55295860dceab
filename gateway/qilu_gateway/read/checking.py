"""Checks readings against their equipment class, and converts values to the form in which they are stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE, Signal
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import MIN_TIME_MS, Reading, Value
from qilu_contract.wire import clock
from qilu_contract.wire.json_payload import describe
from qilu_contract.wire.sparkplug import Unreadable

SIGNALS: Mapping[str, Mapping[str, Signal]] = {
    name: {signal.name: signal for signal in class_.signals} for name, class_ in CATALOGUE.items()
}
"""Signals by name, for each class."""
INT64 = range(-(2**63), 2**63)
MAX_NAMES = 160
"""Maximum length of the list of signals in a refusal."""
MOST = 2.0**52
"""Floats of this size and more have no fraction."""


def _ignore(*_: object) -> None:
    pass


def check_all(
    class_name: str,
    readings: Sequence[Reading],
    latest_ms: int,
    remark: Callable[[int, Remark, str], None] = _ignore,
) -> list[dict[str, Value] | BadReading]:
    """`check` for each reading; returns results or exceptions. `remark` also receives the reading's index.
    Readings with the same signals are rounded together, at a third of the cost."""
    found: list[dict[str, Value] | BadReading | None] = [None] * len(readings)
    alike: dict[tuple[str, ...], list[int]] = {}
    for place, reading in enumerate(readings):
        alike.setdefault(tuple(reading.values), []).append(place)
    signals = SIGNALS.get(class_name, {})
    for names, places in alike.items():
        if not names or not all(name in signals and signals[name].type == "float" for name in names):
            continue
        rows = [tuple(readings[place].values.values()) for place in places]
        if not _FLOAT.issuperset(map(type, chain.from_iterable(rows))):
            continue
        ts_ms = np.array([_in_int64(readings[place].ts_ms) for place in places])
        checked = check_columns(class_name, names, ts_ms, np.array(rows, dtype=np.float64), latest_ms)
        # NaN is a value here, not the absence of one.
        good = (checked.good & ~np.isnan(checked.values).any(axis=1)).tolist()
        for place, values, is_good, is_usual in zip(
            places, checked.values.tolist(), good, checked.usual.tolist(), strict=True
        ):
            if is_good:
                found[place] = dict(zip(names, values, strict=True))
                if not is_usual:
                    for name, value in zip(names, values, strict=True):
                        _compare(signals[name], value, lambda *said, place=place: remark(place, *said))
    return [
        _checked(reading, signals, latest_ms, lambda *said, place=place: remark(place, *said))
        if values is None
        else values
        for place, (reading, values) in enumerate(zip(readings, found, strict=True))
    ]


_FLOAT = frozenset((float,))


def _in_int64(ts_ms: int) -> int:
    return ts_ms if ts_ms in INT64 else -1  # invalid in the same way


class Checked(NamedTuple):
    """One entry per reading."""

    values: NDArray[np.float64]
    """Values in the form in which they are stored."""
    good: NDArray[np.bool_]
    """Whether `check` raises nothing and leaves nothing out."""
    usual: NDArray[np.bool_]
    """Whether every value is in its signal's range."""


def check_columns(
    class_name: str,
    names: tuple[str, ...],
    ts_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    latest_ms: int,
    bools: tuple[bool, ...] | None = None,
) -> Checked:
    """`check` for readings by column: one row per reading, NaN for an absent signal (each reading has at
    least one signal). `bools`: for each column, whether it came as booleans and not as numbers; None: the
    class's bool signals did. Readings that are not good must be checked one at a time to get the reasons.
    (`check` accepts a few that are not good here: values of 2**52 steps and more.)"""
    signals = SIGNALS.get(class_name, {})
    limits = None
    if all(name in signals for name in names):  # invented names are not cached
        limits = _limits(class_name, names, bools)
    if limits is None:
        return Checked(values, np.zeros(len(values), bool), np.zeros(len(values), bool))
    with np.errstate(over="ignore"):
        scaled = values * limits.steps
    good: NDArray[np.bool_] = (ts_ms >= MIN_TIME_MS) & (ts_ms <= latest_ms)
    _strike(good, np.abs(scaled) >= MOST)  # also values that are not finite; absent ones compare as false
    whole = np.rint(scaled, out=scaled)
    if len(limits.ints):
        given = values[:, limits.ints]
        _strike(good, (whole[:, limits.ints] != given) & (given == given))
    whole /= limits.steps
    whole += 0.0  # no negative zero
    usual = np.ones(len(values), dtype=bool)
    _strike(usual, (whole < limits.low) | (whole > limits.high))
    return Checked(whole, good, usual)


def _strike(rows: NDArray[np.bool_], odd: NDArray[np.bool_]) -> None:
    """Set rows with any odd value to false."""
    if odd.any():
        rows &= ~odd.any(axis=1)


class _Limits(NamedTuple):
    steps: NDArray[np.float64]
    """Steps per unit; 1 for types other than float."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    ints: NDArray[np.intp]
    """Columns that must hold integers."""


@lru_cache(maxsize=10_000)
def _limits(class_name: str, names: tuple[str, ...], bools: tuple[bool, ...] | None) -> _Limits | None:
    """Limits of these signals; None if a bool signal came as numbers, or the reverse."""
    found = [SIGNALS[class_name][name] for name in names]
    if bools is not None and bools != tuple(signal.type == "bool" for signal in found):
        return None
    return _Limits(
        np.array([signal.steps_per_unit if signal.type == "float" else 1.0 for signal in found]),
        np.array([-np.inf if signal.type == "bool" else signal.low for signal in found]),
        np.array([np.inf if signal.type == "bool" else signal.high for signal in found]),
        np.flatnonzero([signal.type == "int" for signal in found]),
    )


def _checked(
    reading: Reading,
    signals: Mapping[str, Signal],
    latest_ms: int,
    remark: Callable[[Remark, str], None],
) -> dict[str, Value] | BadReading:
    try:
        return check(reading, signals, latest_ms, remark)
    except BadReading as bad:
        return bad


def check(
    reading: Reading,
    signals: Mapping[str, Signal],
    latest_ms: int,
    remark: Callable[[Remark, str], None] = _ignore,
) -> dict[str, Value]:
    """The reading's values in the form in which they are stored: with the catalogue's types, rounded to its
    resolution (so that a float32 from the wire becomes the intended decimal).

    Signals that the class lacks are left out, and values outside their signal's range are kept; `remark` is
    called for both. Raises BadReading for a value that its signal cannot hold, and when no value is left.
    """
    check_time(reading.ts_ms, latest_ms)
    values: dict[str, Value] = {}
    left_out: list[tuple[Remark, str]] = []
    known = ""
    for name, value in reading.values.items():
        signal = signals.get(name)
        if signal is not None:
            values[name] = _value(signal, value)
        elif isinstance(value, Unreadable):
            left_out.append((Remark.WRONG_TYPE, f"{name[:60]!r} is {value.detail}"))
        else:
            known = known or ", ".join(signals)[:MAX_NAMES]
            left_out.append((Remark.UNKNOWN_SIGNAL, f"{name[:60]!r} is no signal of its class ({known})"))
    if left_out and not values:
        kind, detail = left_out[0]
        raise BadReading(Reason(kind), detail)
    for kind, detail in left_out:
        remark(kind, detail)
    for name, value in values.items():
        _compare(signals[name], value, remark)
    return values


def check_time(ts_ms: int, latest_ms: int) -> None:
    """Raises BadReading for a time that is not believed."""
    if not MIN_TIME_MS <= ts_ms <= latest_ms:
        raise BadReading(Reason.BAD_TIMESTAMP, _bad_time(ts_ms, latest_ms))


def _value(signal: Signal, value: Any) -> Value:
    """Raises BadReading unless the signal can hold the value."""
    name, given = signal.name, type(value)
    if (given is float or given is int) and signal.type != "bool":
        try:
            number = float(value)
        except OverflowError:
            raise BadReading(Reason.NOT_FINITE, f"{name} is a number that does not fit 64 bits") from None
        if not math.isfinite(number):
            raise BadReading(Reason.NOT_FINITE, f"{name} is {number}")
        if signal.type == "float":
            return signal.round(number)
        if number.is_integer():
            whole = int(value)  # `float in range` iterates over the range
            if whole in INT64:
                return whole
            raise BadReading(Reason.WRONG_TYPE, f"{name} is {describe(value)}, which does not fit 64 bits")
    elif given is bool and signal.type == "bool":
        return bool(value)
    said = value.detail if isinstance(value, Unreadable) else describe(value)
    hint = ": write numbers without quotes" if given is str else ""
    raise BadReading(Reason.WRONG_TYPE, f"{name} is {said}, and takes {signal.type}{hint}")


def _compare(signal: Signal, value: Value, remark: Callable[[Remark, str], None]) -> None:
    if signal.type != "bool" and not signal.low <= value <= signal.high:
        remark(
            Remark.OUT_OF_RANGE,
            f"{signal.name} is {value:g}, and its range is {signal.low:g} to {signal.high:g} {signal.unit}",
        )


def check_units(class_name: str, units: Mapping[str, str], remark: Callable[[Remark, str], None]) -> None:
    """Call `remark` for signals whose unit of measurement in the birth differs from the class's. Their values
    are stored as they are: spellings of units vary too much to reject a device for them."""
    signals = SIGNALS.get(class_name, {})
    for name, unit in units.items():
        if unit and name in signals and _spelled(unit) != _spelled(signals[name].unit):
            remark(
                Remark.OTHER_UNIT,
                f"{name} is in {unit[:40]!r} by its birth, and the class has {signals[name].unit!r}",
            )


def _spelled(unit: str) -> str:
    return unit.replace("℃", "degC").replace("°", "deg")


def _bad_time(ts_ms: int, latest_ms: int) -> str:
    if ts_ms < MIN_TIME_MS:
        if MIN_TIME_MS <= ts_ms * 1000 <= latest_ms:
            return f"ts {ts_ms} looks like seconds: send milliseconds since 1970"
        return f"ts {ts_ms} lies before 2001-09-09: is the device's clock set?"
    for name, factor in (("microseconds", 10**3), ("nanoseconds", 10**6)):
        if MIN_TIME_MS <= ts_ms // factor <= latest_ms:
            return f"ts {ts_ms} looks like {name}: send milliseconds since 1970"
    ahead_ms = ts_ms - latest_ms + clock.MAX_AHEAD_MS
    return f"ts {ts_ms} lies {ahead_ms / 60_000:.0f} min in the future"
