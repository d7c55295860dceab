"""`qilu up`: the embedded stack."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from qilu_common.addresses import BROKER_PORT, GATEWAY_PORT, LOCAL_BROKER_TLS, PLATFORM_PORT
from qilu_contract.errors import QiluError

from qilu import flags
from qilu.commands import options
from qilu.logfile import log_as_json, log_file
from qilu.output import console
from qilu.process import become_service

if TYPE_CHECKING:
    from qilu.report import Report

BrokerKind = Annotated[
    str,
    typer.Option(
        help="auto (Mosquitto if a recent one is installed), mosquitto, builtin, or a URL: mqtt://host:1883"
    ),
]
Store = Annotated[str | None, typer.Option(help="influxdb://host:8086/database; default: DuckDB")]
Database = Annotated[str | None, typer.Option("--db", help="postgresql://user@host/name; default: SQLite")]
Port = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port of the platform; a free one if it is in use")
]
MqttPort = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port of the broker; a free one if it is in use")
]
MetricsPort = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port of the gateway's /metrics; a free one if it is in use")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start empty: an earlier state directory is kept under another name")
]
Mqtts = Annotated[
    str,
    typer.Option(
        help="Address at which Mosquitto listens to edge nodes with TLS; 0.0.0.0:8883 for other machines"
    ),
]


def up(
    state: options.State = Path("var"),
    broker: BrokerKind = "auto",
    store: Store = None,
    db: Database = None,
    scenario: options.Scenario = None,
    classes: options.Classes = None,
    units: options.Units = None,
    seed: options.Seed = None,
    start: options.Start = None,
    speed: options.Speed = "1",
    duration: options.For = None,
    port: Port = PLATFORM_PORT,
    mqtt_port: MqttPort = BROKER_PORT,
    metrics_port: MetricsPort = GATEWAY_PORT,
    mqtts: Mqtts = LOCAL_BROKER_TLS,
    fresh: Fresh = False,
    report: options.ReportFile = None,
) -> None:
    """Start everything on this machine: broker, gateway, store, platform, equipment.

    Example: qilu up --units 500 --for 60s --report run.json
    """
    options.use_classes(classes)
    from qilu_devices.scenario import load_scenario

    from qilu.stack import run_stack
    from qilu.stack_config import Child, StackConfig, make_state, set_aside, sole_stack

    if duration is not None:
        flags.duration_s(duration)
    if start is not None:
        flags.time_ms(start)
    flags.new_file(report, "--report")
    load_scenario(scenario)
    choices = {
        "--scenario": scenario,
        "--units": units,
        "--seed": seed,
        "--start": start,
        "--for": duration,
    }
    words = ["devices", "run", "--speed", speed]
    for flag, value in choices.items():
        words += [] if value is None else [flag, str(value)]
    child = Child("devices", words, speed=flags.speed(speed))
    config = StackConfig(state, broker, store, db, port, mqtt_port, metrics_port, mqtts, child)
    config.check()
    if fresh and (aside := set_aside(state)):
        console().print(f"The data of earlier runs are in {aside}.", soft_wrap=True)
    elif (state / "registry.sqlite").exists():
        with sole_stack(state):  # else another stack has them
            console().print(
                f"Continuing with the units and readings in {state}; --fresh starts empty.", soft_wrap=True
            )
    become_service()
    make_state(state, child.name)
    with log_file(state / "log" / "stack.log") as log:
        log_as_json(log)
        outcome = asyncio.run(run_stack(config, console()))
        structlog.reset_defaults()
    options.write_report(report, outcome.as_dict())
    _show(outcome, state)


def _show(outcome: Report, state: Path) -> None:
    """Print what the stack did. Raises QiluError when it failed or readings are missing."""
    console().print(
        f"{outcome.taken:,} readings stored ({outcome.stored:,} of the {outcome.acknowledged:,} that the "
        f"simulated equipment sent), {outcome.dead_lettered:,} dead-lettered, {outcome.lost:,} lost; "
        f"{outcome.units_on_cloud:,} of {outcome.units_registered:,} units on cloud; {outcome.seconds:.0f} s",
        soft_wrap=True,
    )
    if outcome.failure is not None:
        raise QiluError(outcome.failure)
    if not outcome.good:
        raise QiluError(
            f"{outcome.lost} acknowledged readings are missing, {outcome.duplicates} are stored twice, "
            f"{outcome.refused} of the simulated equipment are dead letters: "
            f"`qilu gateway dead-letters list --state {state / 'gateway'}` says why."
        )
