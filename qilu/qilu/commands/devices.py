"""`qilu devices`: simulated equipment."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_common.addresses import LOCAL_BROKER, LOCAL_PLATFORM
from qilu_contract.errors import ConfigError

from qilu import flags
from qilu.commands import options, serve
from qilu.logfile import log_to_stderr
from qilu.output import console, print_json
from qilu.process import become_service, on_stop_signals
from qilu.run_config import run_config

if TYPE_CHECKING:
    from qilu_devices.run.config import RunConfig, RunReport

app = typer.Typer(no_args_is_help=True, help="Simulated equipment.")
app.command()(serve.serve)
app.command()(serve.registers)


@app.command()
def run(
    broker: options.Broker = LOCAL_BROKER,
    platform: options.Platform = LOCAL_PLATFORM,
    state: options.State = Path("var/devices"),
    scenario: options.Scenario = None,
    classes: options.Classes = None,
    units: options.Units = None,
    seed: options.Seed = None,
    start: options.Start = None,
    speed: options.Speed = "1",
    duration: options.For = None,
    shard: options.Shard = "1/1",
    commands: options.CommandsOf = None,
    digest: options.Digest = False,
    gateways: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, help="Number of gateways that share the counties; an edge node follows its own"
        ),
    ] = 1,
    cells: options.CellsFile = None,
    profile: options.Profile = "reliable",
    report: options.ReportFile = None,
) -> None:
    """Register a fleet at the platform and publish its telemetry.

    The platform's key comes from QILU_API_KEY, the login to the broker from QILU_MQTT_USER and
    QILU_MQTT_PASSWORD.

    Example: qilu devices run --units 100 --speed 10 --for 10m
    """
    options.use_classes(classes)
    from qilu_common.cells import load_cells

    config = run_config(
        broker=broker,
        platform=platform,
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
    listed = None if cells is None else load_cells(cells)
    config = replace(
        config,
        gateways=gateways if listed is None else listed.all_shards,
        cells=listed,
        strict=profile == "strict",
    )
    if digest:
        _print_digest(config)
    else:
        _simulate(config, report)


@app.command()
def backfill(
    days: Annotated[int, typer.Option(min=1, max=36_500, help="Days of history")],
    broker: options.Broker = LOCAL_BROKER,
    platform: options.Platform = LOCAL_PLATFORM,
    state: options.State = Path("var/backfill"),
    scenario: options.Scenario = None,
    units: options.Units = None,
    seed: options.Seed = None,
    start: options.Start = None,
    shard: options.Shard = "1/1",
    commands: options.CommandsOf = None,
    digest: options.Digest = False,
    report: options.ReportFile = None,
    classes: options.Classes = None,
) -> None:
    """Publish history: the last days, or the days after --start.

    Runs as fast as the gateway accepts readings. After a stop or a crash, the same command continues. Do not
    run it beside a run of the same fleet: an edge node has one connection.

    Example: qilu devices backfill --days 30 --units 100
    """
    options.use_classes(classes)
    from qilu_devices.run.backfill import backfill as what_is_left

    config = run_config(
        broker=broker,
        platform=platform,
        state=None if digest else state,
        scenario=scenario,
        units=units,
        seed=seed,
        start=start,
        shard=shard,
        commands=commands,
    )
    left = what_is_left(config, days)
    if left is None:
        console().print(f"The backfill in {state} is complete: another one needs another --state.")
    elif digest:
        _print_digest(left)
    else:
        _simulate(left, report)


def _print_digest(config: RunConfig) -> None:
    from qilu_devices.digests import combined_digest, unit_digests

    if config.for_s is None or config.start_ms is None:
        raise ConfigError("--digest needs a start and a duration: give --start and --for.")
    until_ms = config.start_ms + round(config.for_s * 1000)
    sha256 = combined_digest(
        unit_digests(
            config.scenario,
            config.run_seed,
            config.start_ms,
            config.unit_count,
            until_ms,
            config.shard,
            config.commands,
        )
    )
    console().print(sha256, markup=False)


def _simulate(config: RunConfig, report: Path | None) -> None:
    """Run until the end, or until a signal comes."""
    flags.new_file(report, "--report")
    become_service()
    if config.state is not None:
        flags.state_folder(config.state)
    log_to_stderr()
    outcome, stopped = asyncio.run(_run_until_signal(config))
    options.write_report(report, outcome)
    if not outcome.until_ms:
        console().print("Stopped before the platform had registered the fleet: nothing was simulated.")
        return
    until = datetime.fromtimestamp(outcome.until_ms / 1000, UTC)
    console().print(
        f"Until {until:%Y-%m-%d %H:%M:%S} UTC: {outcome.readings_made:,} readings, "
        f"{outcome.readings_acked:,} acknowledged by the broker, {outcome.dropped:,} dropped at the edge, "
        f"{outcome.pending:,} not sent.",
        highlight=False,
        soft_wrap=True,
    )
    if config.backfill and (stopped or outcome.pending):
        console().print("Run the same command again to continue.")


async def _run_until_signal(config: RunConfig) -> tuple[RunReport, bool]:
    """The report of the run, and whether a signal ended it."""

    from qilu_devices.run.runner import run as simulate

    from qilu.progress import RunLine

    stopping = asyncio.Event()
    on_stop_signals(stopping.set)
    with RunLine(console(), whole=config.backfill) as line:
        return await simulate(config, line.show, stopping), stopping.is_set()


@app.command()
def catalogue(
    name: Annotated[str | None, typer.Argument(metavar="CLASS", help="One class; default: all")] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write pages with pictures into this folder; print nothing")
    ] = None,
    classes: options.Classes = None,
    as_json: options.Json = False,
) -> None:
    """Print the equipment catalogue: classes, signals and faults.

    Every figure has its source.

    Example: qilu devices catalogue motor
    """
    options.use_classes(classes)
    from qilu_contract.catalogue.classes import CATALOGUE

    from qilu.catalogue import as_data, tables

    if name is not None and name not in CATALOGUE:
        raise ConfigError(f"There is no class {name!r}: use one of {', '.join(CATALOGUE)}.")
    chosen = list(CATALOGUE.values()) if name is None else [CATALOGUE[name]]
    if write is not None:
        from qilu_devices.pages import write_pages

        for path in write_pages(write, chosen):
            console().print(str(path), highlight=False, markup=False)
    elif as_json:
        print_json(as_data(chosen))
    else:
        console().print(*tables(chosen), sep="\n")


@app.command()
def totals(
    scenario: options.Scenario = None, seed: options.Seed = None, as_json: options.Json = False
) -> None:
    """Print the yearly totals of ten million units, beside the province's figures.

    Totals are energy, products and emissions.

    Example: qilu devices totals --json
    """
    from qilu_devices.scenario import load_scenario
    from qilu_devices.totals import class_totals, figures

    from qilu.catalogue import totals_tables

    loaded = load_scenario(scenario)
    chosen = loaded.seed if seed is None else seed
    by_class = class_totals(loaded.classes, loaded.cities, chosen)
    sums = figures(by_class, loaded.cities, chosen)
    if as_json:
        print_json({figure.name: round(figure.value, 3) for figure in sums})
    else:
        console().print(*totals_tables(by_class, sums), sep="\n")


@app.command()
def export(
    out: Annotated[Path, typer.Option(help="Folder for the files; it is made, and must be empty")],
    scenario: options.Scenario = None,
    classes: options.Classes = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--class", help="Only units of this class; may be given several times; default: all"),
    ] = None,
    units: options.Units = None,
    seed: options.Seed = None,
    start: options.Start = None,
    duration: Annotated[str, typer.Option("--for", help="Simulated duration, such as 90s, 2h or 30d")] = "1d",
    as_json: options.Json = False,
) -> None:
    """Write a run to Parquet files, without a broker.

    The files hold readings by class and day, the ground truth of the faults, and the attributes of the units.

    Example: qilu devices export --out data --units 200 --start 2022-06-01T00:00:00+08:00 --for 2d
    """
    options.use_classes(classes)
    from qilu_contract.catalogue.classes import CATALOGUE
    from qilu_devices.scenario import load_scenario

    from qilu.progress import unit_bar

    loaded = load_scenario(scenario)
    unknown = [name for name in only or () if name not in CATALOGUE]
    if unknown:
        raise ConfigError(f"There is no class {unknown[0]!r}: use some of {', '.join(CATALOGUE)}.")
    start_ms = loaded.start_ms if start is None else flags.time_ms(start)
    if start_ms is None:
        raise ConfigError("The scenario has no start: give --start, such as 2022-06-01T00:00:00+08:00.")
    from qilu_devices.export import ExportConfig
    from qilu_devices.export import export as write

    config = ExportConfig(
        out=out,
        scenario=loaded,
        seed=loaded.seed if seed is None else seed,
        units=loaded.units if units is None else units,
        start_ms=start_ms,
        until_ms=start_ms + round(flags.duration_s(duration) * 1000),
        classes=tuple(dict.fromkeys(only or ())),
    )
    with unit_bar(console(), "readings") as shown:
        report = write(config, shown)
    if as_json:
        print_json(report)
        return
    console().print(
        f"{report.readings:,} readings ({report.values:,} values) of {report.units:,} units in "
        f"{report.files:,} files ({report.bytes / 1e6:,.1f} MB), {report.faults:,} faults of which "
        f"{report.faults_visible:,} became visible; {report.seconds:,.1f} s, "
        f"{report.values_per_s:,.0f} values/s.",
        highlight=False,
        soft_wrap=True,
    )
