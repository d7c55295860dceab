"""Writes a run's manifest while it runs, and the ground truth of faults when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from msgspec.structs import replace
from qilu_contract.errors import ConfigError

from qilu_devices import faults
from qilu_devices.commands import ScheduledCommand, with_commands
from qilu_devices.fleet import Unit
from qilu_devices.labels import labelled
from qilu_devices.run.config import Reached, RunConfig
from qilu_devices.run.manifest import Manifest, NodeRecord, ScenarioRecord, class_records
from qilu_devices.transport import episodes
from qilu_devices.transport.disturbance import Disturbance

FOREVER_MS = 2**62

_log = structlog.get_logger(__name__)


class Recorder:
    """Writes to the run's state directory, if there is one. `accounts` returns the progress of each edge
    node; `commands` grows while the run accepts commands."""

    def __init__(
        self,
        config: RunConfig,
        reached: Reached,
        units: Sequence[Unit],
        accounts: Callable[[], dict[str, NodeRecord]],
        disturbance: Disturbance,
        commands: list[ScheduledCommand],
    ) -> None:
        self._config, self._reached, self._units = config, reached, units
        self._accounts, self._disturbance, self._commands = accounts, disturbance, commands
        self._save_fails = False

    def keep(self) -> None:
        """Save the manifest during the run. A disk that takes no writes does not stop the run."""
        try:
            self.save(finished=False)
        except ConfigError as error:
            if not self._save_fails:
                _log.warning("manifest_not_saved", error=str(error))
            self._save_fails = True
        else:
            self._save_fails = False

    def save(self, *, finished: bool) -> None:
        config, reached = self._config, self._reached
        if config.state is None or reached.catching_up:  # the existing manifest is further ahead
            return
        scenario = config.scenario
        held = self._disturbance.held()
        Manifest(
            scenario=ScenarioRecord(scenario.name, scenario.sha256, scenario.text),
            seed=config.run_seed,
            start_ms=reached.start_ms,
            units=config.unit_count,
            shard=f"{config.shard.index}/{config.shard.count}",
            speed=config.speed,
            until_ms=reached.until_ms,
            finished=finished,
            nodes={
                id_: replace(
                    record,
                    acked_through_ms=min(
                        record.acked_through_ms, reached.whole_until_ms, held.get(id_, FOREVER_MS) - 1
                    ),
                )
                for id_, record in self._accounts().items()
            },
            beyond_ms=max((fault.largest_shift_ms for fault in scenario.transport.values()), default=0),
            classes=class_records(scenario),
            commands=self._commands,
            backfill_until_ms=reached.start_ms + round((config.for_s or 0.0) * 1000)
            if config.backfill
            else None,
        ).save(config.state)

    def save_end(self, *, finished: bool) -> None:
        """Save the manifest, and beside it the ground truth of faults and of transport faults until the last
        sample."""
        self.save(finished=finished)
        config, reached = self._config, self._reached
        if config.state is not None and not reached.catching_up:
            plan = with_commands(config.scenario.faults, self._commands)
            units = {unit.id: unit.class_name for unit in self._units}
            seed, span = config.run_seed, (reached.start_ms, reached.until_ms)
            truth = faults.ground_truth(units, seed, *span, plan)
            found = labelled(truth, self._units, seed, *span, config.scenario.faults, self._commands)
            about = {"units": len(units), "start_ms": span[0], "until_ms": span[1], "seed": seed}
            faults.save(found, config.state, about)
            if config.scenario.transport:
                episodes.save(self._disturbance.ground_truth(), config.state)
            else:
                (config.state / episodes.FILE_NAME).unlink(missing_ok=True)  # an earlier run's
