"""Twins: a unit with a fault beside the same unit without it (same seed, weather and chance), and a normal
day. Used for pictures and for checks of signatures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.equipment import EquipmentClass, Fault, Sign

from qilu_devices.classes import KERNELS
from qilu_devices.kernel import Kernel, severities
from qilu_devices.noise import Streams, Values, keys_of

Series = dict[str, NDArray[np.float64]]
"""Values by signal; axes: step, unit."""

SEED = 11
UNITS = 30
MONDAY_MS = 1_509_292_800_000  # 30 October 2017, 00:00 in Shandong
JANUARY_MS = 1_516_550_400_000  # 22 January 2018, a Monday: ice needs frost
DAY_S = 86_400
_HOUR_MS = 3_600_000

STEP_S = {
    **{"blast_furnace": 600, "wind_turbine": 600, "motor": 120, "boiler": 60, "compressor": 10, "cnc": 20},
    **{"robot": 7, "reactor": 180, "pump": 60, "loom": 10, "pasteuriser": 5, "oven": 20},
}
"""Seconds between two steps of a fault's picture: longer than in telemetry for slow classes; the equations
accept any."""
USUAL_STEP_S = 60

DAY_STEP_S = {"compressor": 10, "cnc": 20, "loom": 10}
"""Steps of a normal day for classes where a minute would be too long: a compressor must detect its limits."""

ONSET, LONGEST, END = 40, 110, 240
"""Steps of a fault's picture: before the onset, maximum of the fault, total."""

_SHORT = 5  # a fault that would be over in half of that has steps so much shorter
_MOST_DEVELOPING = 0.6  # of a fault's time, so that there is something left to see of it


@dataclass(frozen=True, slots=True)
class Profile:
    """Severity of a picture's fault over time: 0 at step ONSET, 1 from `developed` on, 0 from `repair` on."""

    step_s: int
    developed: int
    repair: int

    def severity(self, k: int) -> float:
        if not ONSET <= k < self.repair:
            return 0.0
        return 1.0 if k >= self.developed else (k - ONSET) / (self.developed - ONSET)


def profile_of(class_name: str, fault: Fault) -> Profile:
    """A fault's own times, those of days drawn together."""
    step_s, lasting_s = STEP_S.get(class_name, USUAL_STEP_S), 3600.0 * (fault.develop_h + fault.repair_h)
    if lasting_s < LONGEST * step_s / 2:
        step_s //= _SHORT
    steps = min(LONGEST, int(lasting_s / step_s))
    share = min(fault.develop_h / (fault.develop_h + fault.repair_h), _MOST_DEVELOPING)
    return Profile(step_s, ONSET + round(steps * share), ONSET + steps)


@dataclass(frozen=True, slots=True)
class Twins:
    """The unit that a picture shows: hours since the first step, and each signal with and without the
    fault."""

    fault: Fault
    profile: Profile
    hours: Values
    sound: dict[str, Values]
    faulty: dict[str, Values]

    def shows(self, sign: Sign) -> bool:
        """Whether the unit's signal does what the signature says, while the fault is developed."""
        during = slice(self.profile.developed, self.profile.repair)
        without, with_ = self.sound[sign.signal][during], self.faulty[sign.signal][during]
        change = float(np.mean(with_ - without))
        match sign.direction:
            case "+":
                return change > 0.0
            case "-":
                return change < 0.0
            case "~":
                return bool(with_.std() > without.std())
            case "^":
                return bool(with_.max() < without.max())
            case _:
                return bool((with_ == without).all())


def kernel_of(name: str, step_s: int) -> Kernel:
    """UNITS units of a class, ten to an enterprise."""
    units, enterprises = (
        Streams(keys_of(SEED, [f"{prefix}{i // share}" for i in range(UNITS)]))
        for prefix, share in (("unit", 1), ("enterprise", 10))
    )
    return KERNELS[name](units, enterprises, float(step_s))


def day(equipment: EquipmentClass) -> tuple[Values, dict[str, Values]]:
    """Hours of a Monday, and every signal of one unit that works and rests, or works all day."""
    step_s = DAY_STEP_S.get(equipment.name, max(60, equipment.base_interval_s))
    kernel = kernel_of(equipment.name, step_s)
    count = DAY_S // step_s + 1
    times = np.full(UNITS, MONDAY_MS, dtype=np.int64)
    produced = [kernel.step(k, times + k * step_s * 1000) for k in range(count)]
    series = {name: np.array([step[name] for step in produced]) for name in produced[0]}
    place = _liveliest(equipment, series)
    return np.asarray(np.arange(count) * (step_s / 3600.0), dtype=np.float64), {
        name: values[:, place] for name, values in series.items()
    }


def twins(equipment: EquipmentClass, fault: Fault) -> Twins:
    """The first unit that shows the whole signature; where none does, the one that shows most of it."""
    profile = profile_of(equipment.name, fault)
    begin_ms = (JANUARY_MS if fault.season == "winter" else MONDAY_MS) + 10 * _HOUR_MS
    sound = _observed(equipment.name, None, Profile(profile.step_s, END, END), begin_ms)
    faulty = _observed(equipment.name, fault.name, profile, begin_ms)
    hours = np.asarray(np.arange(END) * (profile.step_s / 3600.0), dtype=np.float64)
    best: tuple[int, Twins] | None = None
    for place in range(UNITS):
        one = Twins(
            fault,
            profile,
            hours,
            {name: values[:, place] for name, values in sound.items()},
            {name: values[:, place] for name, values in faulty.items()},
        )
        shown = sum(map(one.shows, fault.shows))
        if best is None or shown > best[0]:
            best = shown, one
    assert best is not None
    return best[1]


@lru_cache(maxsize=2)  # a class's faults have the same healthy twins
def _observed(name: str, fault: str | None, profile: Profile, begin_ms: int) -> Series:
    kernel = kernel_of(name, profile.step_s)
    times = np.full(UNITS, begin_ms, dtype=np.int64)
    produced = []
    for k in range(END):
        grown = profile.severity(k)
        ill = severities({fault: np.full(UNITS, grown)} if fault is not None and grown > 0.0 else {})
        produced.append(kernel.step(k, times + k * profile.step_s * 1000, ill))
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


def _liveliest(equipment: EquipmentClass, series: Series) -> int:
    """The unit whose base signal moves most, in its own range: not one that rests all day."""
    return int(np.argmax(series[equipment.base_signal.name].std(axis=0)))
