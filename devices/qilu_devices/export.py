"""Export: a run without a broker, written as Parquet files with its readings, ground truth and units.

OUT/class=motor/date=2022-06-01/part-00000.parquet   unit, ts (UTC), a column for each signal of the class
    OUT/units.parquet        location of each unit, and its nameplate
    OUT/faults.parquet       which unit had which fault, and from when on it was visible
    OUT/transport.parquet    what happened on the way, if the scenario has transport faults
    OUT/run.json             what was simulated; written last, so its presence says that the export is whole

The readings are those that a run over MQTT leaves in the store: sampled at the same times, rounded alike,
and changed by the scenario's transport faults. A date is a day in Shandong. Units are computed `TOGETHER` at
a time from start to end, so memory does not grow with the fleet but for the list of its units.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass
from qilu_contract.errors import ConfigError

from qilu_devices import faults
from qilu_devices.classes.wind_turbine import RATED_KW as TURBINE_KW
from qilu_devices.dataset import Parts
from qilu_devices.faults import Occurrence, Schedule
from qilu_devices.fleet import Unit
from qilu_devices.noise import Streams, keys_of
from qilu_devices.run.manifest import Manifest, ScenarioRecord, class_records
from qilu_devices.scenario import Scenario
from qilu_devices.simulation import TOGETHER, Block, ClassRun, Sample, fleet_of
from qilu_devices.transport import episodes as transport
from qilu_devices.transport.disturbance import Disturbance, outcome
from qilu_devices.transport.episodes import Episode, Kind
from qilu_devices.visibility import Watch

NAMEPLATE = {
    "rated_kw": "kW",
    "size_kw": "kW",
    "rated_m3_h": "m³/h",
    "rated_flow": "m³/min",
    "rated_ppm": "picks/min",
    "size_tph": "t/h",
    "volume_m3": "m³",
    "is_gas": "burns gas (1) or coal (0)",
}
"""Constant properties of units in kernels, with their units of measurement."""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """Settings of an export. `classes`: only units of these classes; empty for all."""

    out: Path
    scenario: Scenario
    seed: int
    units: int
    start_ms: int
    until_ms: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportReport:
    """Result of an export. `values`: samples of single signals. `faults_visible`: those of `faults` that
    became visible before the end."""

    units: int
    readings: int
    values: int
    files: int
    bytes: int
    faults: int
    faults_visible: int
    transport_episodes: int
    start_ms: int
    until_ms: int
    seconds: float
    values_per_s: float


class DatasetManifest(Manifest, frozen=True):
    """`run.json` of an export: a run's manifest without edge nodes. `only`: the classes it was held to."""

    only: tuple[str, ...] = ()


Progress = Callable[[int, int], None]
"""Called with readings done and their total."""


def export(config: ExportConfig, progress: Progress = lambda done, total: None) -> ExportReport:
    """Compute and write everything. Blocks. Raises ConfigError when the folder is not empty or cannot be
    written, or when the scenario leaves nothing."""
    began_s = time.monotonic()
    units = fleet_of(config.scenario, config.seed, config.units)
    chosen = [unit for unit in units if not config.classes or unit.class_name in config.classes]
    del units
    if not chosen:
        raise ConfigError(
            f"This fleet has no unit of {', '.join(config.classes)}: give more units or other classes."
        )
    _new_folder(config.out)
    total = sum(_samples_of(CATALOGUE[unit.class_name], config) for unit in chosen)
    done = 0
    truth: list[Occurrence] = []
    episodes: list[Episode] = []
    with Parts(config.out) as parts:
        for name, together in _chunks(chosen):
            chunk = _Chunk(config, name, together)
            parts.begin(chunk.run.units, chunk.nameplate())
            for block in chunk.run.blocks(config.until_ms):
                parts.add(*chunk.readings(block))
                done += len(block.times)
                progress(done, total)
            truth += chunk.labels(config.until_ms)
            if chunk.disturbance is not None:
                episodes += chunk.disturbance.ground_truth()
    truth.sort(key=lambda case: (case.start_ms, case.unit, case.fault))
    about = {
        "units": len(chosen),
        "start_ms": config.start_ms,
        "until_ms": config.until_ms,
        "seed": config.seed,
        "scenario": config.scenario.name,
    }
    faults.save(truth, config.out, about)
    whole = _joined(episodes)
    if config.scenario.transport:
        transport.save(whole, config.out)
    _manifest(config).save(config.out)
    seconds = time.monotonic() - began_s
    return ExportReport(
        units=len(chosen),
        readings=parts.readings,
        values=parts.values,
        files=parts.files,
        bytes=parts.bytes,
        faults=len(truth),
        faults_visible=sum(case.visible_ms is not None for case in truth),
        transport_episodes=len(whole),
        start_ms=config.start_ms,
        until_ms=config.until_ms,
        seconds=round(seconds, 3),
        values_per_s=round(parts.values / seconds, 1),
    )


def _new_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ConfigError(f"--out {out} is not empty: give a new folder.")
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be used ({error.strerror}): give another folder.") from error


def _samples_of(equipment: EquipmentClass, config: ExportConfig) -> int:
    """Number of samples per unit: this many, or one less."""
    return 1 - (config.start_ms - config.until_ms) // (1000 * equipment.base_interval_s)  # rounded up


def _chunks(units: Sequence[Unit]) -> Iterator[tuple[str, list[Unit]]]:
    """Units of one class in the order of the fleet, `TOGETHER` at most."""
    for name in CATALOGUE:
        mine = [unit for unit in units if unit.class_name == name]
        for begin in range(0, len(mine), TOGETHER):
            yield name, mine[begin : begin + TOGETHER]


def _manifest(config: ExportConfig) -> DatasetManifest:
    scenario = config.scenario
    return DatasetManifest(
        scenario=ScenarioRecord(scenario.name, scenario.sha256, scenario.text),
        seed=config.seed,
        start_ms=config.start_ms,
        units=config.units,
        shard="1/1",
        speed=None,
        until_ms=config.until_ms,
        finished=True,
        nodes={},
        classes=class_records(scenario),
        only=config.classes,
    )


class _Chunk:
    """The readings of some units of a class, from start to end."""

    def __init__(self, config: ExportConfig, name: str, units: Sequence[Unit]) -> None:
        equipment, plan = CATALOGUE[name], config.scenario.faults
        self.run = ClassRun(equipment, units, config.seed, config.start_ms, plan)
        self._width = len(equipment.signals)
        ids = [unit.id for unit in self.run.units]
        self._place = {unit: place for place, unit in enumerate(ids)}
        schedule = Schedule(equipment, ids, Streams(keys_of(config.seed, ids)), config.start_ms, plan)
        cases = list(schedule.occurrences(config.start_ms, config.until_ms))
        if cases:
            pairs = [(unit.id, unit.enterprise.id) for unit in self.run.units]
            self.run.watch = Watch(equipment, pairs, config.seed, cases)
        self.disturbance: Disturbance | None = None
        if config.scenario.transport:
            self.disturbance = Disturbance(units, config.seed, config.start_ms, config.scenario.transport)

    def readings(self, block: Block) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Indices of units, times, and values (a column for each signal, NaN where absent), as they are
        stored."""
        if self.disturbance is None:
            values = np.full((len(block.times), self._width), np.nan)
            values[:, block.shape.positions] = block.rows
            return np.arange(len(block.times)), block.times, values
        rows = zip(block.units, block.times.tolist(), block.rows.tolist(), strict=True)
        kept = [
            left
            for unit, ts_ms, row in rows
            for left in map(outcome, self.disturbance.judge(Sample(unit, ts_ms, block.shape, tuple(row))))
            if isinstance(left, Sample)
        ]
        values = np.full((len(kept), self._width), np.nan)
        if kept:
            values[:, block.shape.positions] = [sample.values for sample in kept]
        places = np.array([self._place[sample.unit.id] for sample in kept], dtype=np.int64)
        return places, np.array([sample.ts_ms for sample in kept], dtype=np.int64), values

    def nameplate(self) -> dict[str, NDArray[np.float64]]:
        kernel, count = self.run.kernel, len(self.run.units)
        found = {name: getattr(kernel, name, None) for name in NAMEPLATE}
        if found["rated_kw"] is None and type(kernel).__name__ == "WindTurbines":
            found["rated_kw"] = np.full(count, TURBINE_KW)
        missing = np.full(count, np.nan)
        return {
            name: missing if values is None else np.asarray(values, dtype=np.float64)
            for name, values in found.items()
        }

    def labels(self, until_ms: int) -> list[Occurrence]:
        return [] if self.run.watch is None else list(self.run.watch.labels(until_ms))


def _joined(episodes: Sequence[Episode]) -> list[Episode]:
    """Merge the parts of an episode of edge nodes whose units were computed separately."""

    def key(each: Episode) -> tuple[int, str, str, str]:
        return each.start_ms, each.kind, each.node, each.unit or ""

    found = []
    for _, same in groupby(sorted(episodes, key=key), key):
        first, *rest = same
        first.readings += sum(each.readings for each in rest)
        if first.kind is Kind.RECONNECT_STORM:
            first.readings = 1
        found.append(first)
    return found
