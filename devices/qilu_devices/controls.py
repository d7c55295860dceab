"""Controls: start, stop and set points that commands have set for units of one class, as input of the
kernels."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import NDArray

from qilu_devices.noise import Values

_BY_ITSELF, _STOPPED, _STARTED = 0, 1, 2


class Controls:
    """Controls of one class, one array element per unit. A unit without commands behaves bit for bit as if
    this did not exist."""

    def __init__(self, units: int) -> None:
        self._units = units
        self._mode: NDArray[np.int8] | None = None
        self._set: dict[str, Values] = {}

    def start(self, place: int) -> None:
        """Start the unit: it runs by its calendar or, if the calendar has it stopped now, until the calendar
        next stops it."""
        self._modes()[place] = _STARTED

    def stop(self, place: int) -> None:
        """Stop the unit until it is started."""
        self._modes()[place] = _STOPPED

    def set_point(self, place: int, name: str, value: float) -> None:
        if name not in self._set:
            self._set[name] = np.full(self._units, np.nan)
        self._set[name][place] = value

    def _modes(self) -> NDArray[np.int8]:
        if self._mode is None:
            self._mode = np.zeros(self._units, dtype=np.int8)
        return self._mode

    def take(self, places: NDArray[np.int64]) -> Controls:
        """Copy the present controls of these units, for a new array in this order."""
        if self._mode is None and not self._set:
            return AUTOMATIC
        taken = Controls(len(places))
        taken._mode = None if self._mode is None else self._mode[places]
        taken._set = {name: values[places] for name, values in self._set.items()}
        return taken

    def working(self, by_itself: Values) -> Values:
        """1 for running units, else 0; `by_itself` is the calendar's value. To be called once per step."""
        if self._mode is None:
            return by_itself
        self._mode[(self._mode == _STARTED) & (by_itself > 0.0)] = _BY_ITSELF
        working = np.where(self._mode == _STARTED, 1.0, by_itself)
        return np.where(self._mode == _STOPPED, 0.0, working)

    def allowed(self, by_itself: Values) -> Values:
        """Like `working`, for conditions that a start command cannot create, such as wind or a repaired
        thread."""
        return by_itself if self._mode is None else np.where(self._mode == _STOPPED, 0.0, by_itself)

    @overload
    def value(self, name: str, own: Values, scale: float = 1.0, offset: float = 0.0) -> Values: ...

    @overload
    def value(self, name: str, own: float, scale: float = 1.0, offset: float = 0.0) -> Values | float: ...

    def value(
        self, name: str, own: Values | float, scale: float = 1.0, offset: float = 0.0
    ) -> Values | float:
        """The set point times `scale` plus `offset` where there is one, else `own`."""
        values = self._set.get(name)
        if values is None:
            return own
        return np.where(np.isnan(values), own, values * scale + offset)


AUTOMATIC = Controls(0)
"""Whether no command has been received."""
