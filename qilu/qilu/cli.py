"""The command line. Each command imports its part when it runs: a service's image holds only what that
service needs."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from collections.abc import Coroutine, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, TypeVar, cast

import msgspec
import structlog
import typer
from qilu_contract.errors import ConfigError, QiluError
from typer.exceptions import TyperException

from qilu import flags
from qilu.certificates import certificates_app
from qilu.logfile import log_file, log_stream
from qilu.output import console, print_json
from qilu.process import become_service, on_stop_signals
from qilu.programme import programme_app

if TYPE_CHECKING:
    from qilu_platform.client import NewKey
    from qilu_platform.client import Platform as PlatformClient

app = typer.Typer(
    name="qilu",
    help="Clouds in Qilu: an industrial-internet platform simulator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
devices_app = typer.Typer(no_args_is_help=True, help="Simulated equipment.")
gateway_app = typer.Typer(no_args_is_help=True, help="The gateway: MQTT to the store.")
platform_app = typer.Typer(no_args_is_help=True, help="The platform: registry, ledger, API, console.")
keys_app = typer.Typer(
    no_args_is_help=True, help="API keys of the platform (with an admin key in QILU_API_KEY)."
)
dashboards_app = typer.Typer(no_args_is_help=True, help="Grafana dashboards as code.")
app.add_typer(devices_app, name="devices")
app.add_typer(gateway_app, name="gateway")
letters_app = typer.Typer(no_args_is_help=True, help="What the gateway could not accept.")
gateway_app.add_typer(letters_app, name="dead-letters")
app.add_typer(platform_app, name="platform")
platform_app.add_typer(keys_app, name="keys")
platform_app.add_typer(certificates_app, name="certificates")
app.add_typer(programme_app, name="programme")
app.add_typer(dashboards_app, name="dashboards")

_T = TypeVar("_T")

Broker = Annotated[str, typer.Option(envvar="QILU_BROKER", help="mqtt://host:1883 or mqtts://host:8883")]
StoreUrl = Annotated[
    str, typer.Option("--store", envvar="QILU_STORE", help="duckdb:///path or influxdb://host:8086/database")
]
Db = Annotated[
    str, typer.Option("--db", envvar="QILU_DB", help="sqlite:///path or postgresql://user@host/name")
]
Platform = Annotated[str, typer.Option(envvar="QILU_PLATFORM", help="the platform's address")]
State = Annotated[Path, typer.Option(envvar="QILU_STATE", help="where is kept what must outlive the process")]
Scenario = Annotated[
    Path | None,
    typer.Option(
        envvar="QILU_SCENARIO", help="what is simulated, a YAML file; without it the default that ships"
    ),
]
Seed = Annotated[int | None, typer.Option(help="of everything random, instead of the scenario's")]
Units = Annotated[
    int | None, typer.Option(min=1, max=100_000_000, help="the fleet's size, instead of the scenario's")
]
Start = Annotated[str | None, typer.Option(help="when simulated time begins: 2022-06-01T08:00:00+08:00")]
Speed = Annotated[str, typer.Option(help="simulated seconds a second: 1, 60, 1month/s, max")]
For = Annotated[str | None, typer.Option("--for", help="simulated duration: 90s, 2h, 30d")]
Profile = Annotated[
    Literal["reliable", "strict"],
    typer.Option(help="strict: Sparkplug to the letter, data at QoS 0; what the broker loses is lost"),
]
ReportFile = Annotated[Path | None, typer.Option("--report", help="write one JSON object here at the end")]
Classes = Annotated[
    str | None,
    typer.Option(
        envvar="QILU_CLASSES", help="equipment classes of your own: a YAML file, or a folder of them"
    ),
]
ShardOf = Annotated[str, typer.Option(help="i/n: this process's slice of the fleet, by edge node")]
Digest = Annotated[bool, typer.Option("--digest", help="publish nothing, print one SHA-256 over all samples")]
CommandsOf = Annotated[
    Path | None,
    typer.Option("--commands", help="an earlier run's run.json: its commands, at their simulated times"),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]


def main() -> None:
    """Entry point: runs a command, and says mistakes in one sentence. Exit codes: 0 fine, 1 failed, 2 wrong
    usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal shows ? for what it does not have
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        if sentence := error.format_message().strip().rstrip("."):  # empty: the help was shown instead
            _complain(f"{sentence} (-h shows what there is).")
        sys.exit(2)
    except typer.Abort:
        _complain("aborted, nothing was changed.")
        sys.exit(1)
    except ConfigError as error:
        _complain(str(error))
        sys.exit(2)
    except QiluError as error:
        _complain(str(error))
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(sentence: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"[bold red]qilu:[/] {escape(sentence)}", soft_wrap=True, highlight=False)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


def _use_classes(sources: str | None) -> None:
    """Before anything imports the catalogue, which reads the variable. Child processes inherit it."""
    if sources is not None:
        os.environ["QILU_CLASSES"] = sources


def _log_to_stderr() -> None:
    """Services log state changes as lines: readable on a terminal, JSON elsewhere."""
    last: Any = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    _configure_log(last, log_stream(cast(TextIO, _Stderr())))


class _Stderr(io.TextIOBase):
    """What is stderr when a line is written: a bar on the terminal takes its place, to stay whole."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _configure_log(last: Any, file: Any) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file),
    )


def _write_report(path: Path | None, content: object) -> None:
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


@app.command()
def up(
    state: State = Path("var"),
    broker: Annotated[
        str,
        typer.Option(
            help="auto (Mosquitto if a recent one is installed), mosquitto, builtin, or mqtt://host:1883"
        ),
    ] = "auto",
    store: Annotated[str | None, typer.Option(help="influxdb://host:8086/database instead of DuckDB")] = None,
    db: Annotated[str | None, typer.Option(help="postgresql://… instead of SQLite")] = None,
    scenario: Scenario = None,
    classes: Classes = None,
    units: Units = None,
    seed: Seed = None,
    start: Start = None,
    speed: Speed = "1",
    duration: For = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="of the platform; another one if it is taken")
    ] = 8000,
    mqtt_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="of the broker; another one if it is taken")
    ] = 1883,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="of the gateway's /metrics; another one if it is taken")
    ] = 8081,
    mqtts: Annotated[
        str, typer.Option(help="where Mosquitto listens to edge nodes; 0.0.0.0:8883 for other machines")
    ] = "127.0.0.1:8883",
    report: ReportFile = None,
) -> None:
    """Start everything on this machine: broker, gateway, store, platform, equipment.

    Example: qilu up --units 500 --for 60s --report run.json
    """
    _use_classes(classes)
    from qilu_devices.scenario import load_scenario

    from qilu.stack import Child, StackConfig, make_state, run_stack

    devices: list[str] = ["devices", "run", "--speed", speed]
    for flag, value in {
        "--scenario": scenario,
        "--units": units,
        "--seed": seed,
        "--start": start,
        "--for": duration,
    }.items():
        if value is not None:
            devices += [flag, str(value)]
    flags.speed(speed)
    if duration is not None:
        flags.duration_s(duration)
    if start is not None:
        flags.time_ms(start)
    flags.new_file(report, "--report")
    load_scenario(scenario)
    child = Child("devices", devices, speed=flags.speed(speed))
    config = StackConfig(state, broker, store, db, port, mqtt_port, metrics_port, mqtts, child)
    config.check()
    become_service()
    make_state(state, child.name)
    with log_file(state / "log" / "stack.log") as log:
        _configure_log(structlog.processors.JSONRenderer(), log)
        outcome = _run(run_stack(config, console()))
        structlog.reset_defaults()
    _write_report(report, outcome.as_dict())
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


@app.command()
def publish(
    unit: Annotated[str, typer.Argument(help="the unit's id, as registered")],
    values: Annotated[list[str], typer.Argument(help="signal=value …")],
    broker: Broker = "mqtt://127.0.0.1:1883",
    platform: Platform = "http://127.0.0.1:8000",
    ts: Annotated[int | None, typer.Option(help="milliseconds since 1970, UTC; without it now")] = None,
) -> None:
    """Publish one JSON reading of a registered unit (key from QILU_API_KEY, log-in from QILU_MQTT_USER and
    QILU_MQTT_PASSWORD).

    Example: qilu publish my-motor power_in=11.2 speed=1470
    """
    from qilu_common.secrets import secret

    from qilu import publish as publishing

    reading = publishing.parse_values(values)
    key = secret("QILU_API_KEY")
    if key is None:
        raise ConfigError("QILU_API_KEY is not set: `. var/env` sets it for the stack of `make up`.")
    topic = publishing.telemetry_topic(platform, key, unit)
    body = _run(publishing.publish(broker, topic, reading, ts))
    console().print(f"{topic} {body.decode()}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def doctor(state: State = Path("var"), as_json: Json = False) -> None:
    """Check this machine for what the embedded stack needs, and say how to mend what is missing.

    Example: qilu doctor
    """
    from qilu.doctor import examine

    findings = list(examine(state, (1883, 8883, 8000, 8081)))
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        signs = {"good": "[green]✓[/]", "note": "[yellow]•[/]", "bad": "[bold red]✗[/]"}
        for finding in findings:
            advice = f" [dim]— {finding.advice}[/]" if finding.advice else ""
            console().print(
                f"{signs[finding.verdict]} {finding.what}{advice}", soft_wrap=True, highlight=False
            )
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


@app.command()
def verify(
    run: Annotated[Path, typer.Option("--run", help="the run's manifest: run.json, or the folder it is in")],
    store: StoreUrl,
    as_json: Json = False,
) -> None:
    """Compute again what a run must have stored, and compare it with the store, value by value; exit code 1
    when anything is lost, duplicated, altered or unexpected. A DuckDB file can be read once the stack has
    stopped.

    Example: qilu verify --run var/devices/run.json --store duckdb:///var/readings.duckdb
    """
    # What a run had of classes of its own stands in its manifest.
    if (file := run / "run.json" if run.is_dir() else run).is_file():
        os.environ["QILU_CLASSES"] = str(file)
    from qilu_common.secrets import secret
    from qilu_devices.manifest import load_manifest
    from qilu_stores import open_store

    from qilu.progress import unit_bar
    from qilu.run_record import RunRecord, is_live_run
    from qilu.verify import Verdict
    from qilu.verify import verify as compare
    from qilu.verify_live import verify_live

    source = RunRecord.load(run) if is_live_run(run) else load_manifest(run)
    if store.startswith("duckdb:///") and not Path(store.removeprefix("duckdb:///")).is_file():
        raise ConfigError(
            f"--store {store}: there is no such file; the stack of `make up` keeps var/readings.duckdb."
        )

    async def read() -> Verdict:
        async with open_store(store, secret("QILU_INFLUX_TOKEN")) as opened:
            if isinstance(source, RunRecord):
                with unit_bar(console(), "verifying") as shown:
                    return await verify_live(source, opened, shown)
            return await compare(source, opened)

    verdict = _run(read())
    if as_json:
        print_json(verdict.as_dict())
    else:
        _show_verdict(verdict)
    if not verdict.total.good:
        total = verdict.total
        raise QiluError(
            f"of {total.expected} expected readings {total.lost} are lost and {total.altered} altered; "
            f"{total.duplicated} are stored twice, {total.unexpected} should not be there."
        )


def _show_verdict(verdict: Any) -> None:
    """Totals, by class and by county; counties in which all is well stay in the totals."""
    from rich.table import Table

    columns = ("expected", "stored", "lost", "duplicated", "altered", "unexpected")
    table = Table("", *columns)
    for column in table.columns[1:]:
        column.justify = "right"
    counties = {name: counts for name, counts in verdict.by(1).items() if not counts.good}
    for name, counts in {"all": verdict.total, **verdict.by(0), **counties}.items():
        table.add_row(name, *(f"{getattr(counts, column):,}" for column in columns))
    console().print(table)
    if verdict.total.unacknowledged:
        console().print(
            f"{verdict.total.unacknowledged:,} more are stored that no edge node saw acknowledged."
        )
    for reason, count in sorted(verdict.refused.items()):
        console().print(f"{count:,} were sent unfit for the store: dead letters with the reason {reason}.")
    if verdict.others:
        console().print(f"{verdict.others:,} points of units that are not the run's were left alone.")
    if verdict.dropped:
        console().print(
            f"{len(verdict.dropped):,} edge nodes dropped {sum(verdict.dropped.values()):,} readings at "
            "their own bound: so many missing ones of theirs are not called lost.",
            soft_wrap=True,
        )


@devices_app.command("run")
def devices_run(
    broker: Broker = "mqtt://127.0.0.1:1883",
    platform: Platform = "http://127.0.0.1:8000",
    state: State = Path("var/devices"),
    scenario: Scenario = None,
    classes: Classes = None,
    units: Units = None,
    seed: Seed = None,
    start: Start = None,
    speed: Speed = "1",
    duration: For = None,
    shard: ShardOf = "1/1",
    commands: CommandsOf = None,
    digest: Digest = False,
    gateways: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, help="how many gateways share the counties: each edge node follows its own"
        ),
    ] = 1,
    profile: Profile = "reliable",
    report: ReportFile = None,
) -> None:
    """Register the fleet at the platform (key from QILU_API_KEY), then publish its telemetry.

    Example: qilu devices run --units 100 --speed 10 --for 10m
    """
    _use_classes(classes)
    from qilu_devices.fleet import Shard
    from qilu_devices.run import RunConfig
    from qilu_devices.scenario import load_scenario

    loaded = load_scenario(scenario)
    for_s = None if duration is None else flags.duration_s(duration)
    start_ms = loaded.start_ms if start is None else flags.time_ms(start)
    config = RunConfig(
        broker=broker,
        scenario=loaded,
        platform=platform,
        seed=seed,
        units=units,
        start_ms=start_ms,
        speed=flags.speed(speed),
        for_s=for_s,
        shard=Shard(*flags.shard(shard)),
        state=state,
        commands=_commands_of(commands),
        gateways=gateways,
        strict=profile == "strict",
    )
    if digest:
        _print_digest(config)
    else:
        _simulate(config, report)


@devices_app.command("backfill")
def devices_backfill(
    days: Annotated[int, typer.Option(min=1, max=36_500, help="how many days of history")],
    broker: Broker = "mqtt://127.0.0.1:1883",
    platform: Platform = "http://127.0.0.1:8000",
    state: State = Path("var/backfill"),
    scenario: Scenario = None,
    units: Units = None,
    seed: Seed = None,
    start: Start = None,
    shard: ShardOf = "1/1",
    commands: CommandsOf = None,
    digest: Digest = False,
    report: ReportFile = None,
    classes: Classes = None,
) -> None:
    """Publish history as fast as it is taken: the last days, or those after --start. Stopped or killed, it
    goes on where it was when it is called again. Not beside a run of the same fleet: an edge node has one
    connection.

    Example: qilu devices backfill --days 30 --units 100
    """
    _use_classes(classes)
    from qilu_devices.backfill import backfill
    from qilu_devices.fleet import Shard
    from qilu_devices.run import RunConfig
    from qilu_devices.scenario import load_scenario

    loaded = load_scenario(scenario)
    config = RunConfig(
        broker=broker,
        scenario=loaded,
        platform=platform,
        seed=seed,
        units=units,
        start_ms=loaded.start_ms if start is None else flags.time_ms(start),
        shard=Shard(*flags.shard(shard)),
        state=None if digest else state,
        commands=_commands_of(commands),
    )
    left = backfill(config, days)
    if left is None:
        console().print(f"The backfill in {state} is complete: another one needs another --state.")
    elif digest:
        _print_digest(left)
    else:
        _simulate(left, report)


def _commands_of(manifest: Path | None) -> tuple[Any, ...]:
    from qilu_devices.manifest import load_manifest

    return () if manifest is None else tuple(load_manifest(manifest).commands)


def _print_digest(config: Any) -> None:
    from qilu_devices.simulation import digest

    if config.for_s is None or config.start_ms is None:
        raise ConfigError("--digest needs an end and a beginning: give --for and --start.")
    loaded = config.scenario
    size = config.units if config.units is not None else loaded.units
    seed = config.seed if config.seed is not None else loaded.seed
    until_ms = config.start_ms + round(config.for_s * 1000)
    found = digest(loaded, seed, config.start_ms, size, until_ms, config.shard, config.commands)
    console().print(found, markup=False)


def _simulate(config: Any, report: Path | None) -> None:
    """A run until its end, or until a signal comes."""
    flags.new_file(report, "--report")
    become_service()
    if config.state is not None:
        flags.state_folder(config.state)
    from qilu_devices.run import RunReport, run

    from qilu.progress import RunLine

    _log_to_stderr()

    async def simulate() -> tuple[RunReport, bool]:
        stopping = asyncio.Event()
        on_stop_signals(stopping.set)
        with RunLine(console(), whole=config.backfill) as line:
            return await run(config, line.show, stopping), stopping.is_set()

    outcome, stopped = _run(simulate())
    _write_report(report, outcome)
    until = datetime.fromtimestamp(outcome.until_ms / 1000, UTC)
    console().print(
        f"Until {until:%Y-%m-%d %H:%M:%S} UTC: {outcome.readings_made:,} readings, "
        f"{outcome.readings_acked:,} acknowledged by the broker, {outcome.dropped:,} dropped at the edge, "
        f"{outcome.pending:,} not sent.",
        highlight=False,
        soft_wrap=True,
    )
    if config.backfill and (stopped or outcome.pending):
        console().print("The same command goes on from there.")


@devices_app.command("catalogue")
def devices_catalogue(
    name: Annotated[str | None, typer.Argument(metavar="CLASS", help="one class alone")] = None,
    write: Annotated[
        Path | None, typer.Option(help="write the pages, with pictures, into this folder instead")
    ] = None,
    classes: Classes = None,
    as_json: Json = False,
) -> None:
    """Print the equipment catalogue: classes, signals and faults, with where each figure comes from.

    Example: qilu devices catalogue motor
    """
    _use_classes(classes)
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


@devices_app.command("totals")
def devices_totals(
    scenario: Scenario = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Print what a fleet of ten million units uses, makes and emits in a year, beside the province's figures.

    Example: qilu devices totals --json
    """
    from qilu_devices.scenario import load_scenario
    from qilu_devices.totals import class_totals, figures

    from qilu.catalogue import totals_tables

    given = load_scenario(scenario)
    chosen = given.seed if seed is None else seed
    found = class_totals(given.classes, given.cities, chosen)
    sums = figures(found, given.cities, chosen)
    if as_json:
        print_json({figure.name: round(figure.value, 3) for figure in sums})
    else:
        console().print(*totals_tables(found, sums), sep="\n")


@gateway_app.command("run")
def gateway_run(
    broker: Broker = "mqtt://127.0.0.1:1883",
    store: StoreUrl = "influxdb://127.0.0.1:8086/qilu",
    platform: Platform = "http://127.0.0.1:8000",
    state: State = Path("var/gateway"),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="of /metrics and /healthz")] = 8081,
    host: Annotated[str, typer.Option(help="address that /metrics and /healthz listen on")] = "127.0.0.1",
    classes: Classes = None,
    shard: Annotated[str, typer.Option(help="i/n: this gateway's part of the counties")] = "1/1",
    profile: Profile = "reliable",
) -> None:
    """Take readings from the broker and store them (keys from QILU_API_KEY, QILU_INFLUX_TOKEN,
    QILU_MQTT_USER, QILU_MQTT_PASSWORD).

    Example: qilu gateway run --broker mqtt://127.0.0.1 --store influxdb://127.0.0.1/qilu
    """
    _use_classes(classes)
    from qilu_gateway.service import GatewayService
    from qilu_gateway.settings import Settings

    become_service()
    _log_to_stderr()
    settings = Settings.load(
        broker=broker,
        store=store,
        platform=platform,
        state=state,
        http_port=port,
        http_host=host,
        shard=shard,
        profile=profile,
    )

    async def serve() -> None:
        service = GatewayService(settings)
        on_stop_signals(service.stop)
        await service.run()

    _run(serve())


Letter = Annotated[int | None, typer.Option("--id", min=1, max=2**63 - 1, help="this one letter")]
LetterReason = Annotated[str | None, typer.Option("--reason", help="only those refused for this reason")]
LetterUnit = Annotated[str | None, typer.Option("--unit", help="only those of this unit")]


@letters_app.command("list")
def letters_list(
    state: State = Path("var/gateway"),
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="how many, the latest first")] = 20,
    reason: LetterReason = None,
    unit: LetterUnit = None,
    as_json: Json = False,
) -> None:
    """List what the gateway could not accept, with the reason. Works while the gateway runs.

    Example: qilu gateway dead-letters list --limit 5
    """
    from rich.markup import escape
    from rich.table import Table

    from qilu.letters import read

    rows = read(state, reason=reason, unit=unit, limit=limit)
    if as_json:
        for row in rows:
            print_json(row.as_dict())
        return
    table = Table()
    for heading in ("id", "last seen", "reason", "readings", "topic", "detail"):
        table.add_column(heading, justify="right" if heading == "readings" else "left", overflow="fold")
    for row in rows:
        seen = datetime.fromtimestamp(row.last_seen_ms / 1000, UTC).isoformat(" ", "seconds")
        words = (str(row.id), seen, row.reason, str(row.readings), escape(row.topic), escape(row.detail))
        table.add_row(*words)
    console().print(table)


@letters_app.command("show")
def letters_show(
    id: Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="the letter's number, as `list` shows it")],
    state: State = Path("var/gateway"),
    as_json: Json = False,
) -> None:
    """Show one dead letter with its payload.

    Example: qilu gateway dead-letters show 17
    """
    from qilu.letters import read

    rows = read(state, id=id, limit=1)
    if not rows:
        raise QiluError(
            f"There is no dead letter {id}: `qilu gateway dead-letters list` shows what is there."
        )
    content = rows[0].as_dict()
    if as_json:
        print_json(content)
        return
    for name, value in content.items():
        console().print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)


@letters_app.command("replay")
def letters_replay(
    state: State = Path("var/gateway"),
    id: Letter = None,
    reason: LetterReason = None,
    unit: LetterUnit = None,
    everything: Annotated[bool, typer.Option("--all", help="all of them")] = False,
    as_json: Json = False,
) -> None:
    """Have the running gateway take dead letters again, once their cause is mended. Those that it accepts now
    are stored and gone; the others stay.

    Example: qilu gateway dead-letters replay --reason unknown_unit
    """
    _move_letters("replay", state, id, reason, unit, everything, as_json)


@letters_app.command("purge")
def letters_purge(
    state: State = Path("var/gateway"),
    id: Letter = None,
    reason: LetterReason = None,
    unit: LetterUnit = None,
    everything: Annotated[bool, typer.Option("--all", help="all of them")] = False,
    as_json: Json = False,
) -> None:
    """Throw dead letters away, whether or not the gateway runs.

    Example: qilu gateway dead-letters purge --reason bad_topic
    """
    _move_letters("purge", state, id, reason, unit, everything, as_json)


def _move_letters(
    what: Literal["replay", "purge"],
    state: Path,
    id: int | None,
    reason: str | None,
    unit: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    from qilu.letters import move

    if everything == any(choice is not None for choice in (id, reason, unit)):
        raise ConfigError("Say which dead letters are meant: --id, --reason, --unit or --all.")
    outcome = _run(move(what, state, id=id, reason=reason, unit=unit))
    if as_json:
        print_json(outcome)
        return
    done = "accepted now" if what == "replay" else "thrown away"
    kept = f", {outcome.kept:,} stay" if what == "replay" else ""
    console().print(f"{outcome.done:,} dead letters with {outcome.readings:,} readings {done}{kept}.")


@platform_app.command("run")
def platform_run(
    db: Db = "sqlite:///var/registry.sqlite",
    store: Annotated[
        str | None,
        typer.Option(envvar="QILU_STORE", help="influxdb://host:8086/database, for units' readings"),
    ] = None,
    broker: Annotated[
        str | None, typer.Option(envvar="QILU_BROKER", help="mqtt://host:1883, for commands to units")
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="port to listen on")] = 8000,
    classes: Classes = None,
) -> None:
    """Serve registry, counts, API and console. An empty database takes its first admin key from QILU_API_KEY,
    else makes one and shows it once.

    Example: qilu platform run --db postgresql://qilu@127.0.0.1/qilu --store influxdb://127.0.0.1/qilu
    """
    _use_classes(classes)
    from qilu_platform.service import PlatformService
    from qilu_platform.settings import Settings

    become_service()
    _log_to_stderr()
    with flags.settings("QILU_PLATFORM_"):
        settings = Settings(db_url=db, store_url=store, broker=broker, host=host, port=port)

    async def serve() -> None:
        stopping = asyncio.Event()
        on_stop_signals(stopping.set)
        async with PlatformService(settings) as service:
            if service.first_admin_key is not None:
                console().print(
                    f"The first admin key, shown once: {service.first_admin_key}", highlight=False
                )
            console().print(f"The platform serves at {service.url}", highlight=False)
            served = asyncio.create_task(service.wait(), name="served")
            stop = asyncio.create_task(stopping.wait(), name="stop")
            await asyncio.wait((served, stop), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if served.done():
                served.result()
            served.cancel()

    _run(serve())


@platform_app.command("audit")
def platform_audit(
    db: Db = "sqlite:///var/registry.sqlite",
    repair: Annotated[
        bool, typer.Option("--repair", help="show what would make them agree, and do it when told to")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="with --repair: do it without asking")] = False,
) -> None:
    """Compare the ledger, the counters and the registry's rows; exit code 1 when they differ.

    Example: qilu platform audit --db sqlite:///var/registry.sqlite
    """
    from qilu_common.secrets import secret
    from qilu_platform.audit import audit
    from qilu_platform.audit import repair as repair_counts
    from qilu_platform.database import answering, open_engine

    if db.startswith("sqlite:///") and not Path(db.removeprefix("sqlite:///")).is_file():
        raise ConfigError(
            f"--db {db}: there is no such file; the stack of `make up` keeps var/registry.sqlite."
        )
    engine = open_engine(db, secret("QILU_DB_PASSWORD"))

    def show(lines: Iterable[object]) -> None:
        for line in lines:
            console().print(str(line), highlight=False, markup=False, soft_wrap=True)

    with answering(db):
        findings = audit(engine)
        show(findings)
        if findings and repair:
            changes, _ = repair_counts(engine, dry=True)
            console().print(f"The repair makes {len(changes)} changes:")
            show(changes)
            if changes and (yes or typer.confirm("Make these changes?")):
                changes, findings = repair_counts(engine, dry=False)
                console().print(f"{len(changes)} changes made; the audit log has an entry. What is left:")
                show(findings or ["nothing"])
    if findings:
        raise QiluError(
            f"{len(findings)} findings; `qilu platform audit --repair` shows what would make them agree."
        )
    console().print("The ledger, the counters and the registry agree.")


@platform_app.command("backup")
def platform_backup(
    copy: Annotated[Path, typer.Argument(help="the new file")], db: Db = "sqlite:///var/registry.sqlite"
) -> None:
    """Copy an embedded registry while the platform serves. PostgreSQL has pg_dump: see docs/operations.md.

    Example: qilu platform backup registry-2026-01-31.sqlite --db sqlite:///var/registry.sqlite
    """
    from qilu_platform.backup import back_up

    back_up(db, copy)
    console().print(f"{copy}: {copy.stat().st_size:,} bytes", highlight=False, markup=False)


@platform_app.command("import")
def platform_import(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help=".csv or .ndjson, perhaps .gz")],
    kind: Annotated[str, typer.Option(help="units or enterprises")] = "units",
    platform: Platform = "http://127.0.0.1:8000",
    job: Annotated[str | None, typer.Option(help="go on with this import instead of a new one")] = None,
    errors: Annotated[Path | None, typer.Option(help="write the bad lines here, as NDJSON")] = None,
    as_json: Json = False,
) -> None:
    """Register a whole file (key from QILU_API_KEY). Goes on by itself after a broken connection; what is
    there already is left as it is. Exit code 1 when lines were bad.

    Example: qilu platform import units.csv --kind units --errors bad.ndjson
    """
    from qilu_common.secrets import secret
    from qilu_platform.client import Platform as PlatformClient
    from qilu_platform.client import content_type
    from rich.console import Console

    from qilu.progress import file_bar

    if kind not in ("units", "enterprises"):
        raise ConfigError(f"--kind {kind!r} cannot be imported: use units or enterprises.")
    content_type(file)
    with PlatformClient(platform, secret("QILU_API_KEY")) as registry:
        id_ = registry.open_import(kind).id if job is None else job
        with file_bar(Console(stderr=True), f"importing {kind}", file.stat().st_size) as progress:
            done = registry.import_file(file, id_, progress)
        if errors is not None:
            registry.write_import_errors(id_, errors)
    if as_json:
        print_json(done)
    else:
        console().print(
            f"{done.created:,} registered, {done.existing:,} there already, {done.bad:,} bad lines.",
            highlight=False,
        )
    if done.bad:
        where = f"see {errors}" if errors else f"run again with --job {id_} --errors FILE to see them"
        raise QiluError(f"{done.bad:,} lines were not registered: {where}.")


@platform_app.command("command")
def platform_command(
    unit: Annotated[str, typer.Argument(help="the unit's id")],
    command: Annotated[str, typer.Argument(help="start, stop, reset, set_point or fault")],
    name: Annotated[str | None, typer.Argument(help="of the set point or the fault")] = None,
    value: Annotated[float | None, typer.Argument(help="the set point, or the fault's severity to 1")] = None,
    duration: Annotated[str | None, typer.Option("--for", help="of a fault: 90s, 2h, 30d")] = None,
    platform: Platform = "http://127.0.0.1:8000",
    as_json: Json = False,
) -> None:
    """Tell a unit what to do (key of an operator in QILU_API_KEY) and wait ten seconds for its answer. Exit
    code 1 when it refuses.

    Example: qilu platform command 370202-motor-0000123 set_point load 60
    """
    duration_s = None if duration is None else flags.duration_s(duration)
    with _client(platform) as client:
        done = client.command(unit, command, name, value, duration_s, wait_s=10.0)
    if as_json:
        print_json(done)
    elif done.holds_from_ms is not None:
        from_ms = done.holds_from_ms / 1000
        console().print(f"Accepted; it holds from {datetime.fromtimestamp(from_ms, UTC):%F %T} UTC on.")
    elif done.state == "sent":
        console().print("Sent; there is no answer yet. GET /v1/units/{id}/commands shows it when it comes.")
    if done.state == "refused":
        raise QiluError(f"{unit} refuses {command}: {done.reason}")


def _client(platform: str) -> PlatformClient:
    from qilu_common.secrets import secret
    from qilu_platform.client import Platform as PlatformClient

    return PlatformClient(platform, secret("QILU_API_KEY"))


def _show_key(made: NewKey, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        print_json(made)
        return
    console().print(f"{made.id} {made.key}", soft_wrap=True, highlight=False, markup=False)
    Console(stderr=True).print("The key is shown this once; the platform keeps a hash of it only.")


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="what it is for")],
    role: Annotated[str, typer.Option(help="admin, operator, viewer, enterprise, ingest or fleet")],
    enterprise: Annotated[str | None, typer.Option(help="its id, for the role enterprise")] = None,
    platform: Platform = "http://127.0.0.1:8000",
    as_json: Json = False,
) -> None:
    """Make a key and show it once.

    Example: qilu platform keys create "line 3 gateway" --role ingest
    """
    with _client(platform) as client:
        _show_key(client.create_key(name, role, enterprise), as_json)


@keys_app.command("list")
def keys_list(platform: Platform = "http://127.0.0.1:8000", as_json: Json = False) -> None:
    """List the keys: never the secrets, which nobody keeps.

    Example: qilu platform keys list
    """
    from rich.markup import escape
    from rich.table import Table

    with _client(platform) as client:
        items = client.keys()
    if as_json:
        print_json(items)
        return
    table = Table()
    for heading in ("id", "name", "role", "enterprise", "made", "ends"):
        table.add_column(heading, overflow="fold")
    for item in items:
        made, ends = (
            "" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "seconds")
            for ms in (item.created_ms, item.revoked_ms)
        )
        table.add_row(item.id, escape(item.name), item.role, item.enterprise or "", made, ends)
    console().print(table)


@keys_app.command("rotate")
def keys_rotate(
    id_: Annotated[str, typer.Argument(metavar="ID", help="of the key that is replaced")],
    grace: Annotated[str, typer.Option(help="how long the old key goes on working: 90s, 2h, 30d")] = "0s",
    platform: Platform = "http://127.0.0.1:8000",
    as_json: Json = False,
) -> None:
    """Replace a key by a new one of the same role and show it once.

    Example: qilu platform keys rotate key-0d1f2a3b4c5d --grace 2h
    """
    with _client(platform) as client:
        _show_key(client.rotate_key(id_, int(flags.duration_s(grace))), as_json)


@keys_app.command("revoke")
def keys_revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="of the key that ends")],
    platform: Platform = "http://127.0.0.1:8000",
) -> None:
    """End a key at once, for good.

    Example: qilu platform keys revoke key-0d1f2a3b4c5d
    """
    with _client(platform) as client:
        client.revoke_key(id_)
    console().print(f"{id_} is revoked.", highlight=False, markup=False)


@dashboards_app.command("build")
def dashboards_build(
    to: Annotated[
        Path | None, typer.Option(help="write the dashboards alone into this folder, not the repository's")
    ] = None,
    classes: Classes = None,
) -> None:
    """Generate the dashboards' JSON and the alert rules from their Python. With classes of your own, --to
    says where theirs go.

    Example: qilu dashboards build --classes kiln.yaml --to my-dashboards
    """
    _use_classes(classes)
    from qilu_contract.catalogue.classes import OWN
    from qilu_dashboards.alerts import ALERTS_FOLDER
    from qilu_dashboards.build import JSON_FOLDER, write, write_alerts

    if to is None and OWN:
        raise ConfigError(
            "The repository's dashboards have no classes of your own: give a folder of yours with --to."
        )
    written = [*write(JSON_FOLDER), write_alerts(ALERTS_FOLDER)] if to is None else write(to)
    for path in written:
        console().print(str(path), highlight=False)


@dashboards_app.command("check")
def dashboards_check() -> None:
    """Check that the committed files are what the code makes, and that no query names what nothing writes.

    Example: qilu dashboards check
    """
    from qilu_dashboards.check import problems

    found = problems()
    for problem in found:
        console().print(problem, highlight=False, markup=False, soft_wrap=True)
    if found:
        raise QiluError(f"{len(found)} things are wrong with the dashboards.")
    console().print("The dashboards' files are what the code makes, and every query names what is written.")


@dashboards_app.command("picture")
def dashboards_picture(
    dashboard: Annotated[str, typer.Argument(help="its uid, as in the file: programme, unit-motor")],
    store: Annotated[str, typer.Option(help="influxdb://host:8086/database")],
    out: Annotated[Path, typer.Option(help="the file to write: .svg or .png")],
    hours: Annotated[float, typer.Option(min=0.01, help="how far back it looks")] = 1.0,
    until: Annotated[str | None, typer.Option(help="its end, as 2026-11-19T08:00:00+08:00; else now")] = None,
    chosen: Annotated[list[str] | None, typer.Option("--set", help="a variable, as city=370200")] = None,
    classes: Classes = None,
) -> None:
    """Draw a dashboard without Grafana, from its own queries (token from QILU_INFLUX_TOKEN).

    Example: qilu dashboards picture unit-motor --store influxdb://127.0.0.1:8086/qilu --out motor.svg
    """
    _use_classes(classes)
    from qilu_common.secrets import secret
    from qilu_contract.wire.clock import wall_ms
    from qilu_dashboards.asking import Time
    from qilu_dashboards.pictures import chosen_of, picture

    end_ms = wall_ms() if until is None else flags.time_ms(until)
    time = Time(end_ms - int(hours * 3_600_000), end_ms)
    picture(dashboard, store, secret("QILU_INFLUX_TOKEN"), time, chosen_of(chosen or []), out)
    console().print(str(out), highlight=False)


@dashboards_app.command("push")
def dashboards_push(
    url: Annotated[str, typer.Option(envvar="QILU_GRAFANA_URL", help="Grafana's address")],
    store: Annotated[
        str | None,
        typer.Option(help="influxdb://host:8086/database, where Grafana has no data source of ours yet"),
    ] = None,
    classes: Classes = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="change nothing, show the difference")] = False,
    as_json: Json = False,
) -> None:
    """Bring data source, folder and dashboards to a Grafana (token of a service account from
    QILU_GRAFANA_TOKEN, the store's from QILU_INFLUX_TOKEN). Idempotent.

    Example: qilu dashboards push --url http://127.0.0.1:3000 --store influxdb://127.0.0.1:8086/qilu
    """
    _use_classes(classes)
    from qilu_common.secrets import secret
    from qilu_dashboards.push import Push

    token = secret("QILU_GRAFANA_TOKEN")
    if token is None:
        raise ConfigError("QILU_GRAFANA_TOKEN is not set: make a service account's token in Grafana.")
    for change in Push(url, token, store, secret("QILU_INFLUX_TOKEN"), dry_run).run():
        if as_json:
            print_json(change)
            continue
        console().print(f"{change.done:<9} {change.what}", highlight=False, markup=False, soft_wrap=True)
        if dry_run and change.difference:
            console().print(change.difference, highlight=False, markup=False, soft_wrap=True)
