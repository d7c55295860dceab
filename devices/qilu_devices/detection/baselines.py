"""Baseline detectors for comparison. They process an export like a stream: each unit separately, in time
order, without knowledge of faults.

In the first quarter of the export they learn the normal behaviour of each signal of each unit; then they
raise alarms:

- `threshold`: a signal leaves the range that it had until then by more than k of its deviations, for three
  samples;
- `ewma`: the exponential mean (half an hour) of a signal is more than k deviations of that mean away from its
  usual level;
- `random`: as many alarms as there are faults, at any time, of any unit.

k is one number for all units and signals: the one of a few candidates with the best F1 on the truth itself. A
real detector does not know it, so a baseline's score is the upper bound of the method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass
from qilu_contract.errors import ConfigError

from qilu_devices.detection.alarms import Alarm, together
from qilu_devices.detection.scoring import Score, Truth, score
from qilu_devices.noise import Streams, keys_of
from qilu_devices.parquet import quoted
from qilu_devices.visibility import METERS

LEARN_SHARE = 0.25
MARGINS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SAMPLES = 3
DEVIATIONS = (3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0)
EWMA_S = 1800.0
BATCH_VALUES = 4_000_000
"""Values of units that are read at a time: 32 MB. A unit is read whole, however long the export is."""
_BLOCK = 64

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Result of a baseline; `k` is the best candidate."""

    name: str
    k: float | None
    score: Score
    alarms: list[Alarm]


def learnt_ms(truth: Truth) -> int:
    """Time at which the baselines begin to raise alarms."""
    return truth.start_ms + round(LEARN_SHARE * (truth.until_ms - truth.start_ms))


def run_baselines(
    folder: Path, truth: Truth, tolerance_ms: int, progress: Progress = lambda done, total: None
) -> list[Baseline]:
    """Run each baseline over the export in `folder`, and score it on the faults after the learning period.
    Blocks. Raises ConfigError when the folder is not an export."""
    ids = _units(folder)
    rest = truth.after(learnt_ms(truth))
    raised: dict[str, dict[float, list[Alarm]]] = {
        "threshold": {k: [] for k in MARGINS},
        "ewma": {k: [] for k in DEVIATIONS},
    }
    done, total = 0, sum(map(len, ids.values()))
    progress(done, total)
    for equipment, mine in ids.items():
        for unit, times, columns in _series(folder, CATALOGUE[equipment], mine, truth):
            for name, alarms in alarms_of(CATALOGUE[equipment], unit, times, columns, rest.start_ms).items():
                for k, found in alarms.items():
                    raised[name][k] += found
            done += 1
            progress(done, total)
    names = sorted(unit for mine in ids.values() for unit in mine)
    chance = _random(names, rest)
    results = [Baseline("random", None, score(chance, rest, tolerance_ms), chance)]
    for name, by_k in raised.items():
        scored = [Baseline(name, k, score(alarms, rest, tolerance_ms), alarms) for k, alarms in by_k.items()]
        results.append(max(scored, key=lambda each: each.score.f1))
    return results


def alarms_of(
    equipment: EquipmentClass, unit: str, times: Ints, columns: Sequence[Floats], from_ms: int
) -> dict[str, dict[float, list[Alarm]]]:
    """Alarms of one unit by baseline and k, from a time on; the data before it is for learning. `columns`: an
    array for each signal of the class, with a value for each of `times` (ascending); NaN where it was not
    sampled."""
    learning = times < from_ms
    nothing: dict[str, dict[float, list[Alarm]]] = {"threshold": {}, "ewma": {}}
    if learning.sum() < 2 or learning.all():
        return nothing
    base_s = equipment.base_interval_s
    beyond, away = np.full(len(times), -np.inf), np.zeros(len(times))  # the largest of any signal so far
    for signal, column in zip(equipment.signals, columns, strict=True):
        if signal.name in METERS:
            continue
        held = _held(column)
        usual = held[learning]
        deviation = max(float(usual.std()), signal.resolution)
        outside = np.maximum(held - usual.max(), usual.min() - held) / deviation
        np.maximum(beyond, _trailing_min(outside, SAMPLES * signal.interval_s // base_s), out=beyond)
        smooth = _ewma((held - usual.mean()) / deviation, base_s / EWMA_S)
        np.maximum(away, np.abs(smooth) / max(float(smooth[learning].std()), 1e-3), out=away)
    return {
        "threshold": _raised(unit, times, beyond, learning, MARGINS),
        "ewma": _raised(unit, times, away, learning, DEVIATIONS),
    }


def _raised(
    unit: str, times: Ints, level: Floats, learning: NDArray[np.bool_], limits: Sequence[float]
) -> dict[float, list[Alarm]]:
    found = {}
    for limit in limits:
        on = (level > limit) & ~learning
        edges = np.flatnonzero(np.diff(np.concatenate(([False], on, [False])).astype(np.int8)))
        begins, ends = times[edges[::2]].tolist(), times[edges[1::2] - 1].tolist()
        found[limit] = together(Alarm(unit, a, b) for a, b in zip(begins, ends, strict=True))
    return found


def _held(values: Floats) -> Floats:
    """Fill gaps with the last value, and those at the beginning with the first. A signal without values is
    0."""
    absent = np.isnan(values)
    if not absent.any():
        return values
    places = np.where(absent, 0, np.arange(len(values)))
    held = values[np.maximum.accumulate(places)]
    held[np.isnan(held)] = values[np.argmin(absent)]
    return np.nan_to_num(held)


def _trailing_min(values: Floats, over: int) -> Floats:
    """Minimum of the last `over` values, or of as many as exist."""
    found, have = values.copy(), 1
    while have < over:
        step = min(have, over - have)
        if step < len(found):
            found[step:] = np.minimum(found[step:], found[:-step])
        have += step
    return found


def _ewma(values: Floats, share: float) -> Floats:
    """e = e + share·(x − e), from 0: whole blocks by one product of matrices, then what each block leaves to
    the next."""
    powers = (1.0 - share) ** np.arange(_BLOCK + 1)
    away = np.arange(_BLOCK)[:, None] - np.arange(_BLOCK)[None, :]
    weights = np.where(away >= 0, share * powers[np.maximum(away, 0)], 0.0)
    padded = np.zeros(-(-len(values) // _BLOCK) * _BLOCK)
    padded[: len(values)] = values
    blocks = padded.reshape(-1, _BLOCK) @ weights.T
    before = np.zeros(len(blocks))
    left, keep = 0.0, float(powers[_BLOCK])
    for n, last in enumerate(blocks[:-1, -1].tolist()):
        left = last + keep * left
        before[n + 1] = left
    blocks += before[:, None] * powers[1:]
    return np.asarray(blocks.reshape(-1)[: len(values)])


def _random(units: Sequence[str], truth: Truth) -> list[Alarm]:
    count = sum(fault.visible_ms is not None for fault in truth.faults)
    draws = Streams(keys_of(0, [f"random/{n}" for n in range(count)]))
    which = (draws.uniform("unit") * len(units)).astype(np.int64).tolist()
    at = draws.uniform("time", truth.start_ms, truth.until_ms).astype(np.int64).tolist()
    return together(Alarm(units[unit], ms, ms) for unit, ms in zip(which, at, strict=True))


def _units(folder: Path) -> dict[str, list[str]]:
    """By class."""
    file = folder / "units.parquet"
    found: dict[str, list[str]] = {}
    try:
        with duckdb.connect() as connection:
            query = f"SELECT class, unit FROM read_parquet({quoted(str(file))}) ORDER BY ALL"  # noqa: S608
            for name, unit in connection.execute(query).fetchall():
                found.setdefault(name, []).append(unit)
    except duckdb.Error as error:
        raise ConfigError(
            f"--baseline {folder} is no export: give the folder that `qilu devices export` wrote."
        ) from error
    if unknown := set(found) - set(CATALOGUE):
        raise ConfigError(
            f"--baseline {folder}: the class {min(unknown)} is not known here: set QILU_CLASSES to its file."
        )
    return found


def _series(
    folder: Path, equipment: EquipmentClass, units: Sequence[str], truth: Truth
) -> Iterator[tuple[str, Ints, list[Floats]]]:
    """For each unit, times and an array for each signal."""
    steps = (truth.until_ms - truth.start_ms) / (1000 * equipment.base_interval_s) + 2
    together_ = max(1, int(BATCH_VALUES / (steps * len(equipment.signals))))
    files = quoted(str(folder / f"class={equipment.name}" / "**" / "*.parquet"))
    names = ", ".join(f'"{signal.name}"::DOUBLE' for signal in equipment.signals)
    with duckdb.connect() as connection:
        for begin in range(0, len(units), together_):
            chosen = units[begin : begin + together_]
            query = (
                f"SELECT unit, epoch_ms(ts), {names} FROM read_parquet({files}) "  # noqa: S608
                f"WHERE unit BETWEEN {quoted(chosen[0])} AND {quoted(chosen[-1])} ORDER BY unit, ts"
            )
            ids, stamps, *values = list(connection.execute(query).fetchnumpy().values())
            times = np.asarray(stamps, dtype=np.int64)
            filled = [np.ma.filled(one, np.nan) for one in values]
            edges = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)]
            for low, high in pairwise(edges):
                if high > low:
                    yield str(ids[low]), times[low:high], [one[low:high] for one in filled]
