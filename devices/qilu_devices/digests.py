"""Digests of a run's samples, by which two simulations are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from qilu_devices.commands import ScheduledCommand
from qilu_devices.fleet import Shard
from qilu_devices.scenario import Scenario
from qilu_devices.simulation import Shape, Simulation, fleet_of


def unit_digests(
    scenario: Scenario,
    seed: int,
    start_ms: int,
    units: int,
    until_ms: int,
    shard: Shard | None = None,
    commands: Sequence[ScheduledCommand] = (),
) -> dict[str, bytes]:
    """SHA-256 of each unit's samples, in the order of time and signal name. Shards' dictionaries add up to
    the fleet's."""
    chosen = fleet_of(scenario, seed, units, shard)
    hashes = {unit.id: hashlib.sha256() for unit in chosen}
    orders: dict[Shape, list[int]] = {}
    for moment in Simulation(chosen, seed, start_ms, scenario.faults, commands).moments(until_ms):
        for sample in moment.samples:
            names = sample.shape.names
            order = orders.get(sample.shape)
            if order is None:
                order = orders[sample.shape] = sorted(range(len(names)), key=names.__getitem__)
            text = "".join(f"{sample.ts_ms} {names[i]} {sample.values[i]!r}\n" for i in order)
            hashes[sample.unit.id].update(text.encode())
    return {unit: hash_.digest() for unit, hash_ in hashes.items()}


def combined_digest(digests: dict[str, bytes]) -> str:
    """One SHA-256 over units' digests in the order of their ids, as hex: what `qilu devices run --digest`
    prints."""
    total = hashlib.sha256()
    for unit in sorted(digests):
        total.update(unit.encode() + b"\n" + digests[unit])
    return total.hexdigest()
