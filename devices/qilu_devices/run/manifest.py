"""The manifest of a run, `run.json`: what was simulated and how far each node was acknowledged.

It holds the text of the scenario and of the user's custom classes, so that the readings to be stored can be
recomputed from the manifest alone.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterator
from itertools import count
from pathlib import Path

import msgspec
from qilu_common.private_files import write_private
from qilu_contract.catalogue.classes import OWN
from qilu_contract.catalogue.own_classes import VARIABLE, ClassRecord
from qilu_contract.errors import ConfigError, Reason
from qilu_contract.readings import Reading

from qilu_devices.commands import ScheduledCommand, with_commands
from qilu_devices.faults import Occurrence, ground_truth
from qilu_devices.fleet import Shard, Unit
from qilu_devices.scenario import Scenario, parse_scenario
from qilu_devices.simulation import Sample, Simulation, fleet_of
from qilu_devices.transport.disturbance import Disturbance, outcome
from qilu_devices.transport.episodes import Episode

FILE_NAME = "run.json"


class ScenarioRecord(msgspec.Struct, frozen=True):
    name: str
    sha256: str
    text: str


def class_records(scenario: Scenario) -> tuple[ClassRecord, ...]:
    """The files of the custom classes that a scenario names."""
    return tuple(
        ClassRecord(name, own.file, own.sha256, own.text)
        for name, own in OWN.items()
        if name in scenario.classes
    )


class NodeRecord(msgspec.Struct, frozen=True):
    """Progress of an edge node. `acked_through_ms`: every reading sampled up to here was acknowledged, except
    the number in `dropped`. `unfit`: number of acknowledged readings that a transport fault made unfit for
    the store."""

    acked_through_ms: int
    readings_made: int
    readings_acked: int
    dropped: int
    unfit: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """Manifest of a run. `until_ms` is the time of the last sample made. `finished`: the run ended normally,
    with all readings acknowledged or dropped. `beyond_ms`: how far timestamps may be outside start and until
    because of skewed clocks. `backfill_until_ms`: marks a backfill, and its end."""

    scenario: ScenarioRecord
    seed: int
    start_ms: int
    units: int
    shard: str
    speed: float | None
    until_ms: int
    finished: bool
    nodes: dict[str, NodeRecord]
    beyond_ms: int = 0
    classes: tuple[ClassRecord, ...] = ()
    """The custom classes that the scenario names."""
    commands: list[ScheduledCommand] = []
    backfill_until_ms: int | None = None

    def save(self, folder: Path) -> None:
        """Write the manifest whole or not at all. Raises ConfigError when the folder cannot be written to."""
        body = msgspec.json.format(msgspec.json.encode(self), indent=2)
        target = folder / FILE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_private(target, body)
        except OSError as error:
            raise ConfigError(
                f"{target} cannot be written: {error.strerror}: give another --state folder."
            ) from error

    def fleet(self) -> list[Unit]:
        """Recompute the units of the run. Raises ConfigError when the scenario's text is not the run's."""
        return self._simulated()[1]

    def readings(
        self, refused: Counter[Reason] | None = None, counties: Container[str] | None = None
    ) -> Iterator[Reading]:
        """Recompute every reading that was acknowledged and must be stored, as transport faults left it, in
        timestamp order; only those of some `counties` if given. `refused` counts the readings that must be
        dead-lettered. Nodes that dropped readings are included: some of theirs are not expected. Raises
        ConfigError like `fleet`."""
        simulation, disturbance = self._repeated(counties)
        ahead: list[tuple[int, int, Reading]] = []  # readings that skewed clocks may still precede
        order = count()
        for moment in simulation.moments(self.until_ms):
            for sample in moment.samples:
                node = self.nodes.get(sample.unit.enterprise.id)
                acked = node is not None and sample.ts_ms <= node.acked_through_ms
                for left in map(outcome, disturbance.judge(sample)):
                    if acked and isinstance(left, Sample):
                        reading = Reading(left.unit.id, left.ts_ms, left.named())
                        heapq.heappush(ahead, (left.ts_ms, next(order), reading))
                    elif acked and isinstance(left, Reason) and refused is not None:
                        refused[left] += 1
            while ahead and ahead[0][0] <= moment.ts_ms - self.beyond_ms:
                yield heapq.heappop(ahead)[2]
        while ahead:
            yield heapq.heappop(ahead)[2]

    def ground_truth(self) -> list[Occurrence]:
        """Recompute the faults of all units until the last sample, as in `faults.parquet`. Raises ConfigError
        like `readings`."""
        scenario, units = self._simulated()
        classes = {unit.id: unit.class_name for unit in units}
        plan = with_commands(scenario.faults, self.commands)
        return ground_truth(classes, self.seed, self.start_ms, self.until_ms, plan)

    def transport_truth(self) -> list[Episode]:
        """Recompute the effects of transport faults until the last sample, as in `transport.parquet`. Raises
        ConfigError like `readings`."""
        simulation, disturbance = self._repeated()
        for moment in simulation.moments(self.until_ms):
            for sample in moment.samples:
                disturbance.judge(sample)
        return disturbance.ground_truth()

    def _repeated(self, counties: Container[str] | None = None) -> tuple[Simulation, Disturbance]:
        """The simulation and the disturbance at the run's beginning. A unit's samples do not depend on the
        other units."""
        scenario, units = self._simulated()
        if counties is not None:
            units = [unit for unit in units if unit.enterprise.county in counties]
        return (
            Simulation(units, self.seed, self.start_ms, scenario.faults, self.commands),
            Disturbance(units, self.seed, self.start_ms, scenario.transport),
        )

    def _simulated(self) -> tuple[Scenario, list[Unit]]:
        for record in self.classes:
            known = OWN.get(record.name)
            if known is None or known.sha256 != record.sha256:
                state = "not known here" if known is None else "another one now"
                raise ConfigError(
                    f"{FILE_NAME}: the run had the class '{record.name}' of {record.file}, which is {state}: "
                    f"set {VARIABLE} to the run's {FILE_NAME}, which holds it."
                )
        scenario = parse_scenario(self.scenario.text, f"the scenario in {FILE_NAME}")
        if scenario.sha256 != self.scenario.sha256:
            raise ConfigError(
                f"{FILE_NAME}: the scenario's text does not match its fingerprint: the file was changed."
            )
        index, _, count = self.shard.partition("/")
        return scenario, fleet_of(scenario, self.seed, self.units, Shard(int(index), int(count)))


def load_manifest(path: Path) -> Manifest:
    """The manifest in a file, or in a folder's `run.json`. Raises ConfigError."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        return msgspec.json.decode(file.read_bytes(), type=Manifest)
    except OSError as error:
        raise ConfigError(f"{file}: the manifest cannot be read: {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: this is not the manifest of a run: {error}.") from error
