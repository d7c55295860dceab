"""The faults of a run with the times at which they became visible, computed when the run has ended."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from qilu_contract.catalogue.classes import CATALOGUE

from qilu_devices.commands import ScheduledCommand
from qilu_devices.faults import FaultPlan, Occurrence
from qilu_devices.fleet import Unit
from qilu_devices.simulation import TOGETHER, ClassRun
from qilu_devices.visibility import Watch

MOST_STEPS = 5_000
"""Maximum number of kernel steps, about two seconds, so that the end of a run is not delayed."""

_log = structlog.get_logger(__name__)


def labelled(
    truth: Sequence[Occurrence],
    units: Sequence[Unit],
    seed: int,
    start_ms: int,
    until_ms: int,
    plan: FaultPlan,
    commands: Sequence[ScheduledCommand] = (),
) -> list[Occurrence]:
    """The ground truth in its order, with the time at which each fault became visible; faults that ended
    without becoming visible are left out. `plan` is the scenario's. Classes that need too many steps are left
    unchanged and logged: `qilu devices export` computes them. Blocks."""
    found: list[Occurrence] = []
    left = MOST_STEPS
    by_steps = sorted({case.class_name for case in truth}, key=lambda name: -CATALOGUE[name].base_interval_s)
    for name in by_steps:
        cases = [case for case in truth if case.class_name == name]
        steps = 1 + (until_ms - start_ms) // (1000 * CATALOGUE[name].base_interval_s)
        ill = {case.unit for case in cases}
        mine = [unit for unit in units if unit.id in ill]
        left -= steps * -(-len(mine) // TOGETHER)
        if left < 0:
            _log.info("when faults became visible was not computed", device_class=name, steps=steps)
            found += cases
        else:
            found += _watched(cases, mine, seed, (start_ms, until_ms), plan, commands)
    return sorted(found, key=lambda case: (case.start_ms, case.unit, case.fault))


def _watched(
    cases: Sequence[Occurrence],
    units: Sequence[Unit],
    seed: int,
    span: tuple[int, int],
    plan: FaultPlan,
    commands: Sequence[ScheduledCommand],
) -> list[Occurrence]:
    found: list[Occurrence] = []
    equipment = CATALOGUE[units[0].class_name]
    for begin in range(0, len(units), TOGETHER):
        run = ClassRun(equipment, units[begin : begin + TOGETHER], seed, span[0], plan)
        ids = {unit.id for unit in run.units}
        run.obey([given for given in commands if given.unit in ids])
        pairs = [(unit.id, unit.enterprise.id) for unit in run.units]
        run.watch = watch = Watch(equipment, pairs, seed, [case for case in cases if case.unit in ids])
        for _ in run.blocks(span[1]):
            if watch.done:
                break
        found += watch.labels(span[1])
    return found
