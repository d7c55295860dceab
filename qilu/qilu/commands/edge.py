"""`qilu edge`: an edge node for equipment that speaks OPC UA or Modbus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from qilu_common.addresses import LOCAL_BROKER
from qilu_contract.errors import ConfigError

from qilu import flags
from qilu.commands.options import Broker, Classes, ReportFile, State, use_classes, write_report
from qilu.logfile import log_to_stderr
from qilu.output import console
from qilu.process import become_service, stop_signal

app = typer.Typer(no_args_is_help=True, help="Edge node for equipment that speaks OPC UA or Modbus.")


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file: enterprise, county, server and units")],
    broker: Broker = LOCAL_BROKER,
    state: State = Path("var/edge"),
    classes: Classes = None,
    gateways: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of gateways that share the counties")
    ] = 1,
    report: ReportFile = None,
) -> None:
    """Read an OPC UA or Modbus server, and publish by Sparkplug as the edge node of an enterprise.
    Readings wait on disk while the broker or the gateway is unavailable.

    Example: qilu edge run edge.yaml --broker mqtts://broker.example:8883
    """
    use_classes(classes)
    from qilu_devices.doors.edge_config import load_edge_config
    from qilu_devices.doors.southbound import EdgeReport, run_edge

    loaded = load_edge_config(config)
    flags.new_file(report, "--report")
    become_service()
    flags.state_folder(state)
    log_to_stderr()

    async def until_signal() -> EdgeReport:
        return await run_edge(loaded, broker, state, stop_signal(), gateways)

    outcome = asyncio.run(until_signal())
    write_report(report, outcome)
    console().print(
        f"{outcome.readings:,} readings, {outcome.recovered:,} from the last run, {outcome.acked:,} "
        f"acknowledged by the broker, {outcome.dropped:,} dropped, {outcome.pending:,} wait on disk.",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def config(
    opcua: Annotated[str | None, typer.Option(help="Address of the OPC UA server")] = None,
    modbus: Annotated[str | None, typer.Option(help="Address of the Modbus server")] = None,
    units: Annotated[int, typer.Option(min=1, max=10_000, help="Number of units of the fleet")] = 10,
    seed: Annotated[int, typer.Option(help="Random seed of the fleet")] = 1,
) -> None:
    """Print a configuration for a server that `qilu devices serve` runs with the same --units and --seed, for
    the first enterprise of the fleet.

    Example: qilu edge config --opcua opc.tcp://127.0.0.1:4840 --units 10 --seed 3 > edge.yaml
    """
    from qilu_devices.scenario import load_scenario
    from qilu_devices.simulation import fleet_of

    if (opcua is None) == (modbus is None):
        raise ConfigError(
            "Give one server: either --opcua opc.tcp://127.0.0.1:4840 or --modbus 127.0.0.1:5020."
        )
    fleet = fleet_of(load_scenario(None), seed, units)
    first = fleet[0].enterprise
    lines = [f"enterprise: {first.id}", f'county: "{first.county}"']
    lines.append(f"opcua: {opcua}" if modbus is None else f"modbus: {modbus}")
    lines.append("units:")
    for number, unit in enumerate(fleet, 1):
        if unit.enterprise.id == first.id:
            device = f", device: {number}" if modbus is not None else ""
            lines.append(f"  - {{unit: {unit.id}, class: {unit.class_name}{device}}}")
    console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
