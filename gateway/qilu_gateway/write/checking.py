"""What a class says about the values of its units' readings: which are good, and how they are stored."""

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
"""Signals by name, by class."""
INT64 = range(-(2**63), 2**63)
MAX_NAMES = 160
"""Characters of a class's signals that a refusal shows."""
MOST = 2.0**52
"""From here on a float is whole already."""


def _ignore(*_: object) -> None:
    pass


def check_all(
    class_name: str,
    readings: Sequence[Reading],
    latest_ms: int,
    remark: Callable[[int, Remark, str], None] = _ignore,
) -> list[dict[str, Value] | BadReading]:
    """For each of the readings what `check` returns, or raises; `remark` is told the reading's place, too.
    Those that hold the same signals are rounded together, at a third of the cost."""
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
    return ts_ms if ts_ms in INT64 else -1  # as wrong as that


class Checked(NamedTuple):
    """Of each reading."""

    values: NDArray[np.float64]
    """As they are stored."""
    good: NDArray[np.bool_]
    """`check` raises nothing, and leaves nothing out."""
    usual: NDArray[np.bool_]
    """Each value is in its signal's range."""


def check_columns(
    class_name: str,
    names: tuple[str, ...],
    ts_ms: NDArray[np.int64],
    values: NDArray[np.float64],
    latest_ms: int,
    bools: tuple[bool, ...] | None = None,
) -> Checked:
    """`check` for readings by column: a row each, NaN for a signal that is absent (each has one at least).
    `bools`: of each column, whether it came as true or false, and not as numbers; else those of the bool
    signals did. What is not good must be checked one by one, for the reasons (`check` takes a few that are
    not good here: those of 2**52 steps and more)."""
    signals = SIGNALS.get(class_name, {})
    limits = None
    if all(name in signals for name in names):  # what devices make up is not kept in a cache
        limits = _limits(class_name, names, bools)
    if limits is None:
        return Checked(values, np.zeros(len(values), bool), np.zeros(len(values), bool))
    with np.errstate(over="ignore"):
        scaled = values * limits.steps
    good: NDArray[np.bool_] = (ts_ms >= MIN_TIME_MS) & (ts_ms <= latest_ms)
    _strike(good, np.abs(scaled) >= MOST)  # what is not finite, too; what is absent compares as false
    whole = np.rint(scaled, out=scaled)
    if len(limits.ints):
        given = values[:, limits.ints]
        _strike(good, (whole[:, limits.ints] != given) & (given == given))
    whole /= limits.steps
    whole += 0.0  # no zero below zero
    usual = np.ones(len(values), dtype=bool)
    _strike(usual, (whole < limits.low) | (whole > limits.high))
    return Checked(whole, good, usual)


def _strike(rows: NDArray[np.bool_], odd: NDArray[np.bool_]) -> None:
    """Set to false the rows that have something odd."""
    if odd.any():
        rows &= ~odd.any(axis=1)


class _Limits(NamedTuple):
    steps: NDArray[np.float64]
    """Per unit; 1 for what is no float."""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    ints: NDArray[np.intp]
    """Columns that must be whole."""


@lru_cache(maxsize=10_000)
def _limits(class_name: str, names: tuple[str, ...], bools: tuple[bool, ...] | None) -> _Limits | None:
    """Of signals of the class; None if a signal that is bool came as numbers, or the reverse."""
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
    """The reading's values as they are stored: of the catalogue's types, rounded to its resolution (float32
    on the wire comes back as the decimal that was meant).

    What the class does not have is left out, a value outside of its signal's range is kept, and `remark` is
    told of both. Raises BadReading for a value that its signal cannot hold, and when nothing is left.
    """
    if not MIN_TIME_MS <= reading.ts_ms <= latest_ms:
        raise BadReading(Reason.BAD_TIMESTAMP, _bad_time(reading.ts_ms, latest_ms))
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
            whole = int(value)  # to look for a float in a range walks the range
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
    """Tell `remark` of signals that a birth gives in another unit of measurement than the class has. Their
    values are stored as they come: how people write units is too various to refuse a device for it."""
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
