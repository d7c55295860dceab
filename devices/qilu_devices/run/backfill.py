"""Backfill: a run over a past period, published at full speed; it resumes where an earlier process was
stopped or killed."""

from __future__ import annotations

from dataclasses import replace

from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms

from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import FILE_NAME, Manifest, load_manifest

DAY_MS = 86_400_000


def backfill(config: RunConfig, days: int) -> RunConfig | None:
    """The run of `days` days of history for `config` (ending now, or `days` after its start), or the rest of
    it after an earlier process; None when nothing is left. Raises ConfigError when it would reach into the
    future, or when `config.state` holds a different run."""
    earlier = _earlier(config, days)
    if earlier is not None and earlier.finished:
        return None
    start_ms = config.start_ms if earlier is None else earlier.start_ms
    if start_ms is None:
        start_ms = wall_ms() - days * DAY_MS
    if start_ms + days * DAY_MS > wall_ms():
        raise ConfigError(
            f"--days {days} from --start on are not over yet: give fewer --days, or an earlier --start."
        )
    return replace(
        config,
        start_ms=start_ms,
        speed=None,
        for_s=days * DAY_MS / 1000,
        backfill=True,
        commands=config.commands if earlier is None else tuple(earlier.commands),
        resume=earlier,
    )


def _earlier(config: RunConfig, days: int) -> Manifest | None:
    if config.state is None or not (config.state / FILE_NAME).exists():
        return None
    found = load_manifest(config.state)
    if found.backfill_until_ms is None:
        raise ConfigError(f"{config.state} holds a run that is no backfill: give another --state.")
    scenario, shard = config.scenario, config.shard
    wanted = {
        "scenario": scenario.sha256,
        "seed": scenario.seed if config.seed is None else config.seed,
        "units": scenario.units if config.units is None else config.units,
        "shard": f"{shard.index}/{shard.count}",
        "start": found.start_ms if config.start_ms is None else config.start_ms,
        "days": days,
    }
    there = {
        "scenario": found.scenario.sha256,
        "seed": found.seed,
        "units": found.units,
        "shard": found.shard,
        "start": found.start_ms,
        "days": (found.backfill_until_ms - found.start_ms) // DAY_MS,
    }
    other = [name for name, value in wanted.items() if there[name] != value]
    if other:
        raise ConfigError(
            f"{config.state} holds a backfill with another {' and '.join(other)}: "
            "give the same flags to continue it, or another --state."
        )
    return found
