"""Sensors: limit and round the values of a kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.equipment import Signal

from qilu_devices.noise import Values


def sensed(signals: Sequence[Signal], produced: Mapping[str, Values]) -> NDArray[np.float64]:
    """A row for each unit, a column for each of the signals, rounded to the catalogue's resolution."""
    columns = [
        # A sensor reads no further than its range. Adding 0.0 turns -0.0 into 0.0.
        signal.round_all(np.clip(produced[signal.name], signal.low, signal.high)) + 0.0
        for signal in signals
    ]
    return np.column_stack(columns)
