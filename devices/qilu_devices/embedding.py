"""`simulate`: readings of equipment in Python with one call, without broker or files."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.durations import duration_ms

from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import Simulation, fleet_of


def simulate(
    class_name: str, *, start: str, duration: str, units: int = 1, seed: int = 1
) -> dict[str, NDArray[Any]]:
    """Readings of some units of one class as columns of equal length, in the order of time.

    `unit` holds ids, `time` UTC (datetime64[ms]); every signal of the class is a column of float64 in the
    catalogue's unit, NaN where it was not sampled. A table of any library can be made of it:
    `pandas.DataFrame(columns)`. `start` is ISO 8601 with its zone, `duration` such as 90s, 2h or 1d. The same
    arguments give the same numbers on every machine. Raises ValueError for arguments that cannot be used.
    """
    if class_name not in CATALOGUE:
        raise ValueError(f"there is no class {class_name!r}: use one of {', '.join(CATALOGUE)}.")
    begin = datetime.fromisoformat(start)
    if begin.tzinfo is None:
        raise ValueError(f"{start!r} has no time zone: write 2022-06-01T00:00:00+08:00.")
    start_ms = round(begin.timestamp() * 1000)
    until_ms = start_ms + duration_ms(duration)
    scenario = replace(load_scenario(None), classes={class_name: 1.0})
    fleet = fleet_of(scenario, seed, units)
    names = [signal.name for signal in CATALOGUE[class_name].signals]
    ids: list[str] = []
    times: list[int] = []
    rows: list[tuple[float, ...]] = []
    absent = float("nan")
    for moment in Simulation(fleet, seed, start_ms).moments(until_ms):
        for sample in moment.samples:
            found = dict(zip(sample.shape.names, sample.values, strict=True))
            ids.append(sample.unit.id)
            times.append(moment.ts_ms)
            rows.append(tuple(found.get(name, absent) for name in names))
    values = np.array(rows, dtype=np.float64)
    columns: dict[str, NDArray[Any]] = {
        "unit": np.array(ids, dtype=object),
        "time": np.array(times, dtype="datetime64[ms]"),
    }
    return columns | {name: values[:, place] for place, name in enumerate(names)}
