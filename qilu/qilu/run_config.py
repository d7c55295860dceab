"""The settings of a simulation from the command line's options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qilu import flags

if TYPE_CHECKING:
    from qilu_devices.run.config import RunConfig


def run_config(
    *,
    broker: str,
    scenario: Path | None,
    units: int | None,
    seed: int | None,
    start: str | None,
    shard: str,
    commands: Path | None,
    state: Path | None,
    platform: str | None = None,
    speed: str = "1",
    duration: str | None = None,
) -> RunConfig:
    """Each as its option gives it; `commands` is an earlier run's manifest, whose commands are repeated.
    Raises ConfigError."""
    from qilu_devices.fleet import Shard
    from qilu_devices.run.config import RunConfig
    from qilu_devices.run.manifest import load_manifest
    from qilu_devices.scenario import load_scenario

    loaded = load_scenario(scenario)
    return RunConfig(
        broker=broker,
        scenario=loaded,
        platform=platform,
        seed=seed,
        units=units,
        start_ms=loaded.start_ms if start is None else flags.time_ms(start),
        speed=flags.speed(speed),
        for_s=None if duration is None else flags.duration_s(duration),
        shard=Shard(*flags.shard(shard)),
        state=state,
        commands=() if commands is None else tuple(load_manifest(commands).commands),
    )
