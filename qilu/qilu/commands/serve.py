"""`qilu devices serve`: simulated equipment behind OPC UA and Modbus servers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_contract.errors import ConfigError

from qilu import flags
from qilu.commands.options import (
    Classes,
    CommandsOf,
    For,
    ReportFile,
    Scenario,
    Seed,
    Shard,
    Speed,
    Start,
    State,
    Units,
    use_classes,
    write_report,
)
from qilu.logfile import log_to_stderr
from qilu.output import console
from qilu.process import become_service, stop_signal

if TYPE_CHECKING:
    from qilu_devices.doors.serving import Door, ServeReport
    from qilu_devices.run.config import RunConfig


def serve(
    opcua: Annotated[
        str | None, typer.Option(help="OPC UA server, such as opc.tcp://127.0.0.1:4840 (extra opcua)")
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="OPC UA: also admit anonymous clients without encryption; loopback only"
        ),
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Begin when a client subscribes to (OPC UA) or has read (Modbus) every unit"
        ),
    ] = False,
    state: State = Path("var/serve"),
    scenario: Scenario = None,
    classes: Classes = None,
    units: Units = None,
    seed: Seed = None,
    start: Start = None,
    speed: Speed = "1",
    duration: For = None,
    shard: Shard = "1/1",
    commands: CommandsOf = None,
    report: ReportFile = None,
) -> None:
    """Simulate a fleet behind an OPC UA or Modbus server, for clients that read it. Nothing is published; the
    run's manifest lets `qilu verify` score what a client delivers to a store.

    Example: qilu devices serve --opcua opc.tcp://127.0.0.1:4840 --units 10 --seed 3
    """
    use_classes(classes)
    from qilu_devices.fleet import Shard as Slice
    from qilu_devices.run.config import RunConfig
    from qilu_devices.run.manifest import load_manifest
    from qilu_devices.scenario import load_scenario

    loaded = load_scenario(scenario)
    config = RunConfig(
        broker="",
        scenario=loaded,
        seed=seed,
        units=units,
        for_s=None if duration is None else flags.duration_s(duration),
        start_ms=loaded.start_ms if start is None else flags.time_ms(start),
        speed=flags.speed(speed),
        shard=Slice(*flags.shard(shard)),
        state=state,
        commands=() if commands is None else tuple(load_manifest(commands).commands),
    )
    flags.new_file(report, "--report")
    become_service()
    flags.state_folder(state)
    log_to_stderr()
    doors = _doors(opcua, insecure, state)
    outcome = asyncio.run(_serve_until_signal(config, doors, wait))
    write_report(report, outcome)
    until = f"{datetime.fromtimestamp(outcome.until_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    console().print(
        f"Until {until}: {outcome.readings_made:,} readings of {outcome.units:,} units.",
        highlight=False,
        soft_wrap=True,
    )


def _doors(opcua: str | None, insecure: bool, state: Path) -> list[Door]:
    from qilu_devices import doors

    found: list[Door] = []
    if opcua is not None:
        found.append(doors.load("opcua", "server").OpcuaDoor(opcua, state / "pki", insecure))
    elif insecure:
        raise ConfigError("--insecure is for OPC UA: give --opcua opc.tcp://127.0.0.1:4840 as well.")
    if not found:
        raise ConfigError("Nothing to serve: give --opcua opc.tcp://127.0.0.1:4840.")
    return found


async def _serve_until_signal(config: RunConfig, doors: list[Door], wait: bool) -> ServeReport:
    from qilu_devices.doors.serving import serve as serve_fleet

    def listening() -> None:
        for door in doors:
            console().print(f"Listening at {door.address}. Press Ctrl-C to stop.", highlight=False)

    return await serve_fleet(config, doors, stop_signal(), wait=wait, listening=listening)
