"""The manifest of a run, `run.json`: what was simulated and how far each node was acknowledged.

It holds the scenario's text and those of the user's own classes, so what must be stored can be computed again
from the manifest alone.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
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
    """The files of the user's own classes that a scenario names."""
    return tuple(
        ClassRecord(name, own.file, own.sha256, own.text)
        for name, own in OWN.items()
        if name in scenario.classes
    )


class NodeRecord(msgspec.Struct, frozen=True):
    """`acked_through_ms`: every reading sampled up to here was acknowledged, unless `dropped` counts some.
    `unfit`: so many of the acknowledged ones a transport fault has made unfit for the store."""

    acked_through_ms: int
    readings_made: int
    readings_acked: int
    dropped: int
    unfit: int = 0


class Manifest(msgspec.Struct, frozen=True):
    """`until_ms` is the time of the last sample made. `finished`: the run ended by itself with all
    acknowledged or dropped. `beyond_ms`: so far timestamps may lie outside start and until, where clocks are
    skewed. `backfill_until_ms`: a backfill, and where it ends."""

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
    """The user's own classes that the scenario names."""
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
        """The units of the run, computed again. Raises ConfigError when the scenario's text is not what the
        run had."""
        return self._simulated()[1]

    def readings(self, refused: Counter[Reason] | None = None) -> Iterator[Reading]:
        """Every reading that was acknowledged and must be stored, as transport faults left it, in the order
        of its timestamp, computed again. `refused` is told what must be dead-lettered. Nodes that dropped
        readings are included: for them some are not expected. Raises ConfigError as `fleet` does."""
        simulation, disturbance = self._repeated()
        ahead: list[tuple[int, int, Reading]] = []  # what skewed clocks may still have to be put before
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
        """Which unit had which fault until the last sample, computed again: what `faults.parquet` holds.
        Raises ConfigError as `readings` does."""
        scenario, units = self._simulated()
        classes = {unit.id: unit.class_name for unit in units}
        plan = with_commands(scenario.faults, self.commands)
        return ground_truth(classes, self.seed, self.start_ms, self.until_ms, plan)

    def transport_truth(self) -> list[Episode]:
        """What transport faults did until the last sample, computed again: what `transport.parquet` holds.
        Raises ConfigError as `readings` does."""
        simulation, disturbance = self._repeated()
        for moment in simulation.moments(self.until_ms):
            for sample in moment.samples:
                disturbance.judge(sample)
        return disturbance.ground_truth()

    def _repeated(self) -> tuple[Simulation, Disturbance]:
        """The run's beginning."""
        scenario, units = self._simulated()
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
