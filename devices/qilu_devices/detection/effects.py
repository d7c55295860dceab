"""How far each fault moves the signals of its class: the table in docs/equipment/realism.md.

    python -m qilu_devices.detection.effects [CLASS...]

Units with the fault at full severity are run beside their healthy twins for as long as the catalogue has the
fault, a day at most. The effect on a signal is the largest running mean of its difference from the twin's, or
how much more it swings, as `visibility` has them; in deviations of the healthy unit's signal while it works.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import EquipmentClass, Fault

from qilu_devices.calendar import DAY_MS
from qilu_devices.classes import KERNELS
from qilu_devices.kernel import SOUND, severities
from qilu_devices.noise import Streams, keys_of
from qilu_devices.twins import JANUARY_MS, MONDAY_MS
from qilu_devices.visibility import MEAN_OVER_S, MEAN_OVER_SAMPLES, METERS

UNITS, SEED = 16, 11
STEP_S = {
    **{"blast_furnace": 600, "wind_turbine": 600, "motor": 60, "boiler": 60, "compressor": 20, "cnc": 20},
    **{"robot": 21, "reactor": 180, "pump": 30, "loom": 20, "pasteuriser": 10, "oven": 20},
}
"""Seconds between steps: longer than in telemetry, so that a day is computed quickly."""
LONGEST_S = 86_400
DEVIATION_S = {"blast_furnace": 10 * 86_400, "wind_turbine": 10 * 86_400, "reactor": 2 * 86_400}
"""Time over which deviations are measured; a day for the other classes."""
WORK = {
    **{"blast_furnace": "blast_volume", "wind_turbine": "wind_speed", "boiler": "steam_flow"},
    **{"motor": "power_in", "cnc": "spindle_speed", "robot": "torque_1", "pump": "flow"},
    **{"pasteuriser": "product_flow", "oven": "burner_load"},
}
"""Units work while this signal is above a fifth of its largest value; those of other classes always do."""
WORKS = 0.2
STATES = frozenset({"failure", "diversion"})
"""Signals that report a state by a number, besides those that are true or false."""
DAYS_APART = {"wind_turbine": 3}
"""Days between the starts of the units, so that they do not all have the same weather."""
MOVED = 0.5  # deviations from which on a signal counts as moved

Series = NDArray[np.float64]
"""Axes: step, unit, signal."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Effect of one fault; medians of the units that work while it lasts. `size`: the largest effect on a
    signal, in deviations, and `signal` which one. `moved`: number of signals with an effect of `MOVED` or
    more. `reported`: the machine reports the fault itself by a state."""

    class_name: str
    fault: str
    size: float
    signal: str
    moved: int
    reported: bool


def effects(equipment: EquipmentClass) -> Iterator[Effect]:
    """The effect of each fault of a class, in the catalogue's order."""
    step_s = STEP_S[equipment.name]
    signals = [signal for signal in equipment.signals if signal.name not in METERS]
    names = [signal.name for signal in signals]
    numeric = np.array([signal.type != "bool" and signal.name not in STATES for signal in signals])
    seasons: dict[bool, tuple[Series, NDArray[np.bool_], NDArray[np.float64]]] = {}
    for fault in equipment.faults:
        winter = fault.season == "winter"
        if winter not in seasons:
            sound = _observed(equipment, names, None, winter, _steps(equipment))
            seasons[winter] = (sound, *_at_work(equipment, names, sound))
        sound, works, deviation = seasons[winter]
        steps = _lasting_steps(fault, step_s)
        ill = _observed(equipment, names, fault.name, winter, steps)
        difference = (ill - sound[:steps]) * works[:steps, :, None] / deviation
        share = min(step_s / MEAN_OVER_S, 1.0 / MEAN_OVER_SAMPLES)
        mean, swing = _running(difference, (sound[:steps] / deviation), share)
        at_work = works[:steps].mean(axis=0) > 0.2
        size = np.maximum(np.abs(mean).max(axis=0), np.sqrt(np.maximum(swing.max(axis=0), 0.0)))
        size = np.median(size[at_work], axis=0) * numeric
        states = (np.abs(ill - sound[:steps]).max(axis=0) > 0.0)[at_work][:, ~numeric]
        yield Effect(
            equipment.name,
            fault.name,
            float(size.max()),
            names[int(size.argmax())],
            int((size >= MOVED).sum()),
            bool(states.size and states.mean(axis=0).max() > 0.5),
        )


def _steps(equipment: EquipmentClass) -> int:
    return max(DEVIATION_S.get(equipment.name, 86_400), LONGEST_S) // STEP_S[equipment.name] + 1


def _lasting_steps(fault: Fault, step_s: int) -> int:
    """A fault stays as long as it develops, so that slow ones have time to show."""
    return round(min(3600.0 * max(fault.develop_h, fault.repair_h), LONGEST_S) / step_s)


def _observed(
    equipment: EquipmentClass, names: list[str], fault: str | None, winter: bool, steps: int
) -> Series:
    step_s = STEP_S[equipment.name]
    units, enterprises = (
        Streams(keys_of(SEED, [f"{prefix}{i}" for i in range(UNITS)])) for prefix in ("unit", "enterprise")
    )
    kernel = KERNELS[equipment.name](units, enterprises, float(step_s))
    days = DAYS_APART.get(equipment.name, 0) * (np.arange(UNITS, dtype=np.int64) % (8 if winter else UNITS))
    times = (JANUARY_MS if winter else MONDAY_MS) + 10 * 3_600_000 + DAY_MS * days
    ill = SOUND if fault is None else severities({fault: np.ones(UNITS)})
    found = np.empty((steps, UNITS, len(names)))
    for k in range(steps):  # the first step is sound: kernels start in equilibrium
        produced = kernel.step(k, times + k * step_s * 1000, ill if k else SOUND)
        for n, name in enumerate(names):
            found[k, :, n] = produced[name]
    return found


def _at_work(
    equipment: EquipmentClass, names: list[str], sound: Series
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Where units work, and the deviation of each unit's signals meanwhile."""
    if equipment.name in WORK:
        level = sound[:, :, names.index(WORK[equipment.name])]
        works = level > WORKS * level.max(axis=0)
    else:
        works = np.ones(sound.shape[:2], dtype=np.bool_)
    window = slice(0, DEVIATION_S.get(equipment.name, 86_400) // STEP_S[equipment.name])
    weight = works[window, :, None] / np.maximum(works[window].sum(axis=0), 1)[:, None]
    mean = (weight * sound[window]).sum(axis=0)
    deviation = np.sqrt((weight * (sound[window] - mean) ** 2).sum(axis=0))
    resolution = np.array([equipment.signal(name).resolution for name in names]) / 12.0**0.5
    return works, np.maximum(deviation, resolution)


def _running(difference: Series, twin: Series, share: float) -> tuple[Series, Series]:
    """Running mean of the differences, and of the square of what the units swing more than their twins."""
    mean, swing = np.empty_like(difference), np.empty_like(difference)
    m, s, centre = np.zeros(difference.shape[1:]), np.zeros(difference.shape[1:]), twin[0]
    for k, (away, value) in enumerate(zip(difference, twin, strict=True)):
        centre = centre + share * (value - centre)
        more = (value + away - centre) ** 2 - (value - centre) ** 2
        m, s = m + share * (away - m), s + share * (more - s)
        mean[k], swing[k] = m, s
    return mean, swing


def main(classes: list[str]) -> None:
    for name in classes or CATALOGUE:
        for each in effects(CATALOGUE[name]):
            note = "reported by the machine" if each.reported else ""
            effect = f"{each.size:.1f}, {each.signal}, {each.moved}"
            print(f"| {each.class_name}, {each.fault} | {effect} | {note} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
