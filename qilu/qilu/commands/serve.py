"""`qilu devices serve` and `registers`: simulated equipment behind OPC UA and Modbus servers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_contract.errors import ConfigError

from qilu import flags
from qilu.commands import options
from qilu.logfile import log_to_stderr
from qilu.output import console, print_json
from qilu.process import become_service, stop_signal
from qilu.run_config import run_config

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
    modbus: Annotated[
        str | None, typer.Option(help="Modbus TCP server, such as 127.0.0.1:5020 (extra modbus)")
    ] = None,
    modbus_format: Annotated[
        list[str] | None,
        typer.Option(
            help="Byte order (ABCD, CDAB, BADC, DCBA) and numbers (float, scaled) of all units, such as "
            "CDAB,scaled, or of one device id: 3=BADC,float. May be given several times"
        ),
    ] = None,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="Begin when a client subscribes to (OPC UA) or has read (Modbus) every unit"
        ),
    ] = False,
    state: options.State = Path("var/serve"),
    scenario: options.Scenario = None,
    classes: options.Classes = None,
    units: options.Units = None,
    seed: options.Seed = None,
    start: options.Start = None,
    speed: options.Speed = "1",
    duration: options.For = None,
    shard: options.Shard = "1/1",
    commands: options.CommandsOf = None,
    report: options.ReportFile = None,
) -> None:
    """Simulate a fleet behind an OPC UA or Modbus server, for clients that read it. Nothing is published; the
    run's manifest lets `qilu verify` score what a client delivers to a store.

    Example: qilu devices serve --opcua opc.tcp://127.0.0.1:4840 --units 10 --seed 3
    """
    options.use_classes(classes)
    config = run_config(
        broker="",
        state=state,
        scenario=scenario,
        units=units,
        seed=seed,
        start=start,
        speed=speed,
        duration=duration,
        shard=shard,
        commands=commands,
    )
    flags.new_file(report, "--report")
    become_service()
    flags.state_folder(state)
    log_to_stderr()
    doors = [*_opcua(opcua, insecure, state), *_modbus(modbus, modbus_format or [])]
    if not doors:
        raise ConfigError(
            "Nothing to serve: give --opcua opc.tcp://127.0.0.1:4840 or --modbus 127.0.0.1:5020."
        )
    outcome = asyncio.run(_serve_until_signal(config, doors, wait))
    options.write_report(report, outcome)
    until = f"{datetime.fromtimestamp(outcome.until_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    console().print(
        f"Until {until}: {outcome.readings_made:,} readings of {outcome.units:,} units.",
        highlight=False,
        soft_wrap=True,
    )


def _opcua(url: str | None, insecure: bool, state: Path) -> list[Door]:
    from qilu_devices import doors

    if url is not None:
        return [doors.load("opcua", "server").OpcuaDoor(url, state / "pki", insecure)]
    if insecure:
        raise ConfigError("--insecure is for OPC UA: give --opcua opc.tcp://127.0.0.1:4840 as well.")
    return []


def _modbus(address: str | None, formats: list[str]) -> list[Door]:
    from qilu_devices import doors
    from qilu_devices.doors.registers import Format

    default, by_device = Format(), {}
    for text in formats:
        device, equals, format_ = text.rpartition("=")
        if equals and not device.isdecimal():
            raise ConfigError(
                f"--modbus-format {text!r}: write a device id before '=', such as 3=BADC,float."
            )
        if equals:
            by_device[int(device)] = Format.parse(format_)
        else:
            default = Format.parse(format_)
    if address is not None:
        return [doors.load("modbus", "server").ModbusDoor(address, default, by_device)]
    if formats:
        raise ConfigError("--modbus-format is for Modbus: give --modbus 127.0.0.1:5020 as well.")
    return []


async def _serve_until_signal(config: RunConfig, doors: list[Door], wait: bool) -> ServeReport:
    from qilu_devices.doors.serving import serve as serve_fleet

    def listening() -> None:
        for door in doors:
            console().print(f"Listening at {door.address}. Press Ctrl-C to stop.", highlight=False)

    return await serve_fleet(config, doors, stop_signal(), wait=wait, listening=listening)


def registers(
    name: Annotated[str, typer.Argument(metavar="CLASS", help="Class of the catalogue, such as motor")],
    modbus_format: Annotated[
        str, typer.Option("--format", help="Byte order and numbers, such as CDAB,scaled")
    ] = "ABCD,float",
    classes: options.Classes = None,
    as_json: options.Json = False,
) -> None:
    """Print the Modbus registers of a class: addresses, types, scales and units.

    Example: qilu devices registers motor --format CDAB,scaled
    """
    options.use_classes(classes)
    from qilu_contract.catalogue.classes import CATALOGUE
    from qilu_devices.doors.registers import Format, RegisterMap
    from rich.table import Table

    if name not in CATALOGUE:
        raise ConfigError(f"There is no class {name!r}: use one of {', '.join(CATALOGUE)}.")
    found = RegisterMap(CATALOGUE[name], Format.parse(modbus_format))
    if as_json:
        blocks = {"input_registers": found.entries, "holding_registers": found.set_points}
        print_json({kind: [entry._asdict() for entry in block] for kind, block in blocks.items()})
        return
    for title, entries in (("Input registers", found.entries), ("Holding registers", found.set_points)):
        table = Table("address", "registers", "type", "scale", "unit", "name", "title", title=title)
        for entry in entries:
            cells = (entry.address, entry.registers, entry.type, f"{entry.scale:g}", entry.unit)
            table.add_row(*map(str, cells), entry.name, entry.title)
        console().print(table)
