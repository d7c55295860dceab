"""What `checking.py` asks of readings, of many with the same signals at once. It finds those that are good in
every respect, and says nothing of the others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_contract.columns import EXACT, Floats, Ints
from qilu_contract.readings import MIN_TIME_MS
from qilu_contract.sparkplug import DataType

from qilu_gateway.checking import MOST, SIGNALS


class Checked(NamedTuple):
    values: Floats
    """As they are stored: rounded to the signals' resolution."""
    good: NDArray[np.bool_]
    """Readings that are stored as they are here, and about which nothing is to be remarked."""


class _Signals(NamedTuple):
    steps: Floats
    """Per unit; 1 where nothing is rounded."""
    low: Floats
    high: Floats
    is_float: NDArray[np.bool_]
    is_bool: NDArray[np.bool_]
    all_floats: bool


def check_columns(
    class_name: str,
    names: tuple[str, ...],
    datatypes: Sequence[int] | None,
    ts_ms: Ints,
    values: Floats,
    latest_ms: int,
) -> Checked | None:
    """`values`: NaN where a reading does not have the signal. `datatypes` of Sparkplug, in which they came;
    None: bools are of signals that take them, and numbers of those. None when no reading is good."""
    signals = _signals(class_name, names)
    if signals is None:
        return None
    if datatypes is not None:
        came_as_bool = np.array([datatype == DataType.BOOLEAN for datatype in datatypes])
        if (came_as_bool != signals.is_bool).any():
            return None
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = values * signals.steps
        rounded = np.rint(scaled)
        whole = rounded / signals.steps + 0.0  # no zero below zero
        fine = (np.abs(scaled) < MOST) & (whole >= signals.low) & (whole <= signals.high)
        if not signals.all_floats:
            whole_numbers = (values == rounded) & (np.abs(values) <= EXACT)
            whole_numbers &= (values >= signals.low) & (values <= signals.high)
            fine = np.where(signals.is_float, fine, whole_numbers)
            whole = np.where(signals.is_float, whole, values + 0.0)
        fine |= np.isnan(values)
    good = fine.all(axis=1) & (ts_ms >= MIN_TIME_MS) & (ts_ms <= latest_ms)
    return Checked(whole, good)


@lru_cache(maxsize=10_000)
def _signals(class_name: str, names: tuple[str, ...]) -> _Signals | None:
    """None unless all are signals of the class."""
    known = SIGNALS.get(class_name, {})
    if not names or any(name not in known for name in names):
        return None
    found = [known[name] for name in names]
    is_float = np.array([signal.type == "float" for signal in found])
    is_bool = np.array([signal.type == "bool" for signal in found])
    return _Signals(
        np.array([float(signal.steps_per_unit) if signal.type == "float" else 1.0 for signal in found]),
        np.array([0.0 if signal.type == "bool" else signal.low for signal in found]),
        np.array([1.0 if signal.type == "bool" else signal.high for signal in found]),
        is_float,
        is_bool,
        bool(is_float.all()),
    )
