"""The command line. Each command imports its part when it runs: a service's image holds only what that
service needs."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
import typer
from qilu_contract.errors import ConfigError, QiluError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qilu import flags
from qilu.programme import programme_app

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
dashboards_app = typer.Typer(no_args_is_help=True, help="Grafana dashboards as code.")
app.add_typer(devices_app, name="devices")
app.add_typer(gateway_app, name="gateway")
app.add_typer(platform_app, name="platform")
app.add_typer(programme_app, name="programme")
app.add_typer(dashboards_app, name="dashboards")

console = Console()
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
    Path | None, typer.Option(help="what is simulated, a YAML file; without it the default that ships")
]
Seed = Annotated[int | None, typer.Option(help="of everything random, instead of the scenario's")]
Units = Annotated[int | None, typer.Option(min=1, help="the fleet's size, instead of the scenario's")]
Start = Annotated[str | None, typer.Option(help="when simulated time begins: 2022-06-01T08:00:00+08:00")]
Speed = Annotated[str, typer.Option(help="simulated seconds a second: 1, 60, 1month/s, max")]
For = Annotated[str | None, typer.Option("--for", help="simulated duration: 90s, 2h, 30d")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="write one JSON object here at the end")]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]


def main() -> None:
    """Entry point: runs a command, and says mistakes in one sentence. Exit codes: 0 fine, 1 failed, 2 wrong
    usage."""
    try:
        app()
    except ConfigError as error:
        _complain(error)
        sys.exit(2)
    except QiluError as error:
        _complain(error)
        sys.exit(1)


def _complain(error: QiluError) -> None:
    Console(stderr=True).print(f"[bold red]qilu:[/] {escape(str(error))}", soft_wrap=True, highlight=False)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


def _log_to_stderr() -> None:
    """Services log state changes as lines: readable on a terminal, JSON elsewhere."""
    last: Any = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    _configure_log(last, sys.stderr)


def _configure_log(last: Any, file: Any) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            last,
        ],
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
    units: Units = None,
    seed: Seed = None,
    start: Start = None,
    speed: Speed = "1",
    duration: For = None,
    port: Annotated[int, typer.Option(help="of the platform; another one if it is taken")] = 8000,
    mqtt_port: Annotated[int, typer.Option(help="of the broker; another one if it is taken")] = 1883,
    report: ReportFile = None,
) -> None:
    """Start everything on this machine: broker, gateway, store, platform, equipment.

    Example: qilu up --units 500 --for 60s --report run.json
    """
    from qilu.stack import StackConfig, run_stack

    devices: list[str] = ["--speed", speed]
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
    config = StackConfig(state, broker, store, db, port, mqtt_port, devices)
    (state / "log").mkdir(parents=True, exist_ok=True)
    with (state / "log" / "stack.log").open("a", encoding="utf-8") as log:
        _configure_log(structlog.processors.JSONRenderer(), log)
        outcome = _run(run_stack(config, console))
        structlog.reset_defaults()
    _write_report(report, outcome.as_dict())
    console.print(
        f"{outcome.stored:,} readings stored, {outcome.dead_lettered:,} dead-lettered, "
        f"{outcome.lost:,} lost; "
        f"{outcome.units_on_cloud:,} of {outcome.units_registered:,} units on cloud; {outcome.seconds:.0f} s",
        soft_wrap=True,
    )
    if not outcome.good:
        raise QiluError(
            f"{outcome.lost} acknowledged readings are missing, {outcome.duplicates} are stored twice."
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
    from qilu_contract.secrets import secret

    from qilu import publish as publishing

    reading = publishing.parse_values(values)
    key = secret("QILU_API_KEY")
    if key is None:
        raise ConfigError("QILU_API_KEY is not set: `. var/env` sets it for the stack of `make up`.")
    topic = publishing.telemetry_topic(platform, key, unit)
    body = _run(publishing.publish(broker, topic, reading, ts))
    console.print(f"{topic} {body.decode()}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def doctor(state: State = Path("var"), as_json: Json = False) -> None:
    """Check this machine for what the embedded stack needs, and say how to mend what is missing.

    Example: qilu doctor
    """
    from qilu.doctor import examine

    findings = list(examine(state, (1883, 8000, 8081)))
    if as_json:
        print(msgspec.json.encode([finding.as_dict() for finding in findings]).decode())  # noqa: T201
    else:
        signs = {"good": "[green]✓[/]", "note": "[yellow]•[/]", "bad": "[bold red]✗[/]"}
        for finding in findings:
            advice = f" [dim]— {finding.advice}[/]" if finding.advice else ""
            console.print(f"{signs[finding.verdict]} {finding.what}{advice}", soft_wrap=True, highlight=False)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)


@devices_app.command("run")
def devices_run(
    broker: Broker = "mqtt://127.0.0.1:1883",
    platform: Platform = "http://127.0.0.1:8000",
    state: State = Path("var/devices"),
    scenario: Scenario = None,
    units: Units = None,
    seed: Seed = None,
    start: Start = None,
    speed: Speed = "1",
    duration: For = None,
    shard: Annotated[str, typer.Option(help="i/n: this process's slice of the fleet, by edge node")] = "1/1",
    digest: Annotated[
        bool,
        typer.Option("--digest", help="publish nothing, print one SHA-256 over all samples (needs --for)"),
    ] = False,
    report: ReportFile = None,
) -> None:
    """Register the fleet at the platform (key from QILU_API_KEY), then publish its telemetry.

    Example: qilu devices run --units 100 --speed 10 --for 10m
    """
    from qilu_devices.fleet import Shard
    from qilu_devices.run import RunConfig, run
    from qilu_devices.scenario import load_scenario
    from qilu_devices.simulation import digest as digest_of

    from qilu.progress import RunLine

    loaded = load_scenario(scenario)
    slice_ = Shard(*flags.shard(shard))
    for_s = None if duration is None else flags.duration_s(duration)
    start_ms = loaded.start_ms if start is None else flags.time_ms(start)
    if digest:
        if for_s is None or start_ms is None:
            raise ConfigError("--digest needs an end and a beginning: give --for and --start.")
        size = units if units is not None else loaded.units
        chosen = seed if seed is not None else loaded.seed
        console.print(
            digest_of(loaded, chosen, start_ms, size, start_ms + round(for_s * 1000), slice_), markup=False
        )
        return
    _log_to_stderr()
    config = RunConfig(
        broker=broker,
        scenario=loaded,
        platform=platform,
        seed=seed,
        units=units,
        start_ms=start_ms,
        speed=flags.speed(speed),
        for_s=for_s,
        shard=slice_,
        state=state,
    )

    async def simulate() -> object:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        with RunLine(console) as line:
            return await run(config, line.show, stopping)

    _write_report(report, _run(simulate()))


@devices_app.command("catalogue")
def devices_catalogue(as_json: Json = False) -> None:
    """Print the equipment catalogue: classes and their signals, with where each figure comes from.

    Example: qilu devices catalogue --json
    """
    from qilu_contract.catalogue import CATALOGUE

    if as_json:
        fields = ("name", "unit", "type", "low", "high", "interval_s", "mark")
        content = [
            {
                "class": class_.name,
                "signals": [{field: getattr(signal, field) for field in fields} for signal in class_.signals],
            }
            for class_ in CATALOGUE.values()
        ]
        print(msgspec.json.encode(content).decode())  # noqa: T201
        return
    for class_ in CATALOGUE.values():
        table = Table(title=f"{class_.title} {class_.title_zh} ({class_.name})", title_justify="left")
        table.add_column("signal", no_wrap=True)
        table.add_column("unit")
        for heading in ("nominal", "low", "high", "every"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("mark")
        table.add_column("source")
        for found in class_.signals:
            figures = (f"{figure:g}" for figure in (found.nominal, found.low, found.high))
            table.add_row(found.name, found.unit, *figures, f"{found.interval_s} s", found.mark, found.source)
        console.print(table)
    console.print(
        "Marks: S a source was found, C computed, N a standard is named but not checked, A assumed."
    )


@gateway_app.command("run")
def gateway_run(
    broker: Broker = "mqtt://127.0.0.1:1883",
    store: StoreUrl = "influxdb://127.0.0.1:8086/qilu",
    platform: Platform = "http://127.0.0.1:8000",
    state: State = Path("var/gateway"),
    port: Annotated[int, typer.Option(help="of /metrics and /healthz")] = 8081,
    host: Annotated[str, typer.Option(help="address that /metrics and /healthz listen on")] = "127.0.0.1",
) -> None:
    """Take readings from the broker and store them (keys from QILU_API_KEY, QILU_INFLUX_TOKEN,
    QILU_MQTT_USER, QILU_MQTT_PASSWORD).

    Example: qilu gateway run --broker mqtt://127.0.0.1 --store influxdb://127.0.0.1/qilu
    """
    from qilu_gateway.service import GatewayService
    from qilu_gateway.settings import Settings

    _log_to_stderr()
    settings = Settings(
        broker=broker, store=store, platform=platform, state=state, http_port=port, http_host=host
    )

    async def serve() -> None:
        service = GatewayService(settings)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, service.stop)
        await service.run()

    _run(serve())


@gateway_app.command("dead-letters")
def gateway_dead_letters(
    state: State = Path("var/gateway"),
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="how many, the latest first")] = 20,
    as_json: Json = False,
) -> None:
    """List what the gateway could not accept, with the reason. Works while the gateway runs.

    Example: qilu gateway dead-letters --limit 5
    """
    from qilu_gateway.dead_letters import list_rows, open_for_reading
    from qilu_gateway.statefile import FILE_NAME

    with open_for_reading(state / FILE_NAME) as connection:
        rows = list_rows(connection, limit=limit)
    if as_json:
        for row in rows:
            content = {name: getattr(row, name) for name in row.__dataclass_fields__ if name != "payload"}
            content["payload"] = row.payload.decode(errors="backslashreplace")
            print(msgspec.json.encode(content).decode())  # noqa: T201
        return
    table = Table()
    for heading in ("last seen", "reason", "readings", "topic", "detail"):
        table.add_column(heading, justify="right" if heading == "readings" else "left", overflow="fold")
    for row in rows:
        seen = datetime.fromtimestamp(row.last_seen_ms / 1000, UTC).isoformat(" ", "seconds")
        table.add_row(seen, row.reason, str(row.readings), escape(row.topic), escape(row.detail))
    console.print(table)


@platform_app.command("run")
def platform_run(
    db: Db = "sqlite:///var/registry.sqlite",
    store: Annotated[
        str | None,
        typer.Option(envvar="QILU_STORE", help="influxdb://host:8086/database, for units' readings"),
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 8000,
) -> None:
    """Serve registry, counts, API and console. An empty database takes its first admin key from QILU_API_KEY,
    else makes one and shows it once.

    Example: qilu platform run --db postgresql://qilu@127.0.0.1/qilu --store influxdb://127.0.0.1/qilu
    """
    from qilu_platform.service import PlatformService
    from qilu_platform.settings import Settings

    _log_to_stderr()
    settings = Settings(db_url=db, store_url=store, host=host, port=port)

    async def serve() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        async with PlatformService(settings) as service:
            if service.first_admin_key is not None:
                console.print(f"The first admin key, shown once: {service.first_admin_key}", highlight=False)
            console.print(f"The platform serves at {service.url}", highlight=False)
            served = asyncio.create_task(service.wait(), name="served")
            stop = asyncio.create_task(stopping.wait(), name="stop")
            await asyncio.wait((served, stop), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if served.done():
                served.result()
            served.cancel()

    _run(serve())


@platform_app.command("audit")
def platform_audit(db: Db = "sqlite:///var/registry.sqlite") -> None:
    """Replay the ledger and compare it with the counters and the registry; exit code 1 when they differ.

    Example: qilu platform audit --db sqlite:///var/registry.sqlite
    """
    from qilu_contract.secrets import secret
    from qilu_platform.database import open_engine
    from qilu_platform.ledger import audit

    if db.startswith("sqlite:///") and not Path(db.removeprefix("sqlite:///")).is_file():
        raise ConfigError(
            f"--db {db}: there is no such file; the stack of `make up` keeps var/registry.sqlite."
        )
    differences = audit(open_engine(db, secret("QILU_DB_PASSWORD")))
    for difference in differences:
        console.print(str(difference), highlight=False, markup=False)
    if differences:
        raise QiluError(f"{len(differences)} counts differ from the ledger.")
    console.print("The ledger, the counters and the registry agree.")


@dashboards_app.command("build")
def dashboards_build() -> None:
    """Generate the dashboards' JSON from their Python.

    Example: qilu dashboards build
    """
    from qilu_dashboards.build import JSON_FOLDER, write

    for path in write(JSON_FOLDER):
        console.print(str(path), highlight=False)
