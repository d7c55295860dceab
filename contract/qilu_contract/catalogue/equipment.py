"""Equipment classes: signals, faults and set points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SignalType = Literal["float", "int", "bool"]

MARKS = {
    "S": "a source was found",
    "C": "computed",
    "N": "a standard is named but the number was not checked against it",
    "A": "assumed",
}
"""The mark of a figure's source."""

NO_SIGNALS = ("city", "county", "enterprise", "industry", "unit", "time", "ts", "born_ms", "rowid")
"""Tags, times and the mark of a birth: no signal may have their names."""

INFORMATION = (
    *("bdSeq", "Node Control/", "Device Control/", "Node Info/", "Device Info/", "Properties/"),
    "Command/",
)
"""Beginnings of the names of metrics that describe a node or device instead of measuring something."""

_EXACT_IN_FLOAT32 = 2**23


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured quantity of a class. `low` and `high` are physical bounds, `resolution` the step that
    values are rounded to before they are encoded and again before they are stored, `interval_s` the time
    between two samples. A signal with an event (`per_event`: tap, part, cycle, stop) is set by the event and
    sampled like the others: a sample tells what the last event left.
    """

    name: str
    unit: str
    type: SignalType
    resolution: float
    nominal: float
    low: float
    high: float
    interval_s: int
    per_event: str
    mark: str
    source: str
    steps_per_unit: float = field(init=False, repr=False, compare=False)
    """One over the resolution, a power of ten."""

    def __post_init__(self) -> None:
        # Every resolution is a power of ten, so this is exact, and dividing by it gives the shortest decimal.
        object.__setattr__(self, "steps_per_unit", float(round(1 / self.resolution)))

    @property
    def is_wide(self) -> bool:
        """A float of 32 bits cannot tell all of its steps apart (a counter): it travels as one of 64."""
        return self.type == "float" and max(self.high, -self.low) / self.resolution > _EXACT_IN_FLOAT32

    def round_all(self, values: ArrayLike) -> NDArray[np.float64]:
        """Values rounded to the resolution, as float64; any shape."""
        scale = self.steps_per_unit
        return np.rint(np.asarray(values, dtype=np.float64) * scale) / scale

    def round(self, value: float) -> float:
        """One value rounded to the resolution: the same result as `round_all`, at less cost a call."""
        scale = self.steps_per_unit
        scaled = value * scale
        if abs(scaled) >= 2**52:  # already whole, and round() would go through big integers
            return float(value)
        return round(scaled) / scale


Direction = Literal["+", "-", "~", "=", "^"]

DIRECTIONS: dict[Direction, str] = {
    "+": "up",
    "-": "down",
    "~": "varies more",
    "=": "not touched",
    "^": "its peak is lower",
}
"""Effect of a fault on a signal."""


class Sign(NamedTuple):
    """One part of a fault's signature."""

    signal: str
    direction: Direction


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which units of a class fail. `signature` says in words which signals show it and how,
    `shows` says it signal by signal, in the order in which they matter; `source` where
    that is from, with its mark. The three times are assumed (A) for every fault: `mean_hours_between`, the
    mean time from repair to next onset of one unit; `develop_h` from onset to full severity; `repair_h` from
    there to the repair. A fault with a `season` (winter) begins in that season only.
    """

    name: str
    title: str
    signature: str
    shows: tuple[Sign, ...]
    source: str
    mark: str
    mean_hours_between: float
    develop_h: float
    repair_h: float
    season: str


@dataclass(frozen=True, slots=True)
class SetPoint:
    """A property of a class that a command may set, within `low` and `high`, in `unit`."""

    name: str
    unit: str
    low: float
    high: float
    title: str
    mark: str
    source: str


class Part(NamedTuple):
    """A member of a Template or a column of a DataSet, and the signal whose values it holds."""

    name: str
    signal: str


@dataclass(frozen=True, slots=True)
class TemplateForm:
    """A Sparkplug Template whose members are signals: the name of the metric, and that of its definition in
    the edge node's birth. The name of a member of a Template within it is its path: `Meter/Energy`."""

    metric: str
    definition: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class DataSetForm:
    """A Sparkplug DataSet whose columns are signals. Each row is a reading; the column `time` has its time in
    milliseconds since 1970."""

    metric: str
    time: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class EquipmentClass:
    name: str
    title: str
    title_zh: str
    signals: tuple[Signal, ...]
    faults: tuple[Fault, ...]
    set_points: tuple[SetPoint, ...] = ()
    stoppable: bool = False
    """Whether commands start and stop its units: what people bring down over days takes neither."""
    templates: tuple[TemplateForm, ...] = ()
    data_sets: tuple[DataSetForm, ...] = ()
    """Forms in which Sparkplug may carry signals besides separate metrics; a signal is in one at most."""

    @property
    def forms(self) -> tuple[TemplateForm | DataSetForm, ...]:
        return (*self.templates, *self.data_sets)

    @property
    def base_interval_s(self) -> int:
        """The shortest interval; every other is a multiple, so every regular reading holds the signals that
        have it.
        """
        return min(signal.interval_s for signal in self.signals)

    @property
    def base_signal(self) -> Signal:
        """The first signal with the shortest interval: present in every regular reading."""
        return next(signal for signal in self.signals if signal.interval_s == self.base_interval_s)

    def signal(self, name: str) -> Signal:
        """The signal called `name`; KeyError if the class has none."""
        for signal in self.signals:
            if signal.name == name:
                return signal
        raise KeyError(name)

    def fault(self, name: str) -> Fault:
        """The fault called `name`; KeyError if the class has none."""
        for fault in self.faults:
            if fault.name == name:
                return fault
        raise KeyError(name)
