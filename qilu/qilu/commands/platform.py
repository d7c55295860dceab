"""`qilu platform`: the platform, its registry, its keys and certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_common.addresses import LOCAL_PLATFORM, PLATFORM_PORT
from qilu_contract.errors import ConfigError, QiluError

from qilu import flags
from qilu.commands import certificates, keys
from qilu.commands.options import CellsFile, Classes, Db, Json, Platform, use_classes
from qilu.logfile import log_to_stderr
from qilu.output import console, print_json
from qilu.process import become_service, stop_signal, until_stopped

if TYPE_CHECKING:
    from qilu_platform.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The platform: registry, ledger, API, console.")
app.add_typer(keys.app, name="keys")
app.add_typer(certificates.app, name="certificates")

_REGISTRY = "sqlite:///var/registry.sqlite"


@app.command()
def run(
    db: Db = _REGISTRY,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="QILU_STORE", help="Store URL for units' readings: influxdb://host:8086/database"
        ),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(envvar="QILU_BROKER", help="Broker URL for commands to units: mqtt://host:1883"),
    ] = None,
    cells: CellsFile = None,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on")] = PLATFORM_PORT,
    classes: Classes = None,
) -> None:
    """Serve registry, counts, API and console.

    The first admin key of an empty database is QILU_API_KEY; without it, the platform makes one and shows it
    once.

    Example: qilu platform run --db postgresql://qilu@127.0.0.1/qilu --store influxdb://127.0.0.1/qilu
    """
    use_classes(classes)
    from qilu_platform.settings import Settings

    become_service()
    log_to_stderr()
    with flags.settings("QILU_PLATFORM_"):
        settings = Settings(db_url=db, store_url=store, broker=broker, cells=cells, host=host, port=port)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    """Until a signal comes, or the server ends by itself."""
    from qilu_platform.service import PlatformService

    stopping = stop_signal()
    async with PlatformService(settings) as service:
        if service.first_admin_key is not None:
            console().print(f"The first admin key, shown once: {service.first_admin_key}", highlight=False)
        console().print(f"The platform serves at {service.url}", highlight=False)
        await until_stopped(service.wait(), stopping)


@app.command()
def audit(
    db: Db = _REGISTRY,
    repair: Annotated[
        bool, typer.Option("--repair", help="Show the changes that would make them agree, then ask")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --repair: make the changes without asking")
    ] = False,
) -> None:
    """Compare the ledger, the counters and the registry.

    Exit code 1 if they differ.

    Example: qilu platform audit --db sqlite:///var/registry.sqlite
    """
    from qilu_common.secrets import secret
    from qilu_platform import audit as auditing
    from qilu_platform.database.engine import open_engine
    from qilu_platform.database.faults import answering

    if db.startswith("sqlite:///") and not Path(db.removeprefix("sqlite:///")).is_file():
        raise ConfigError(
            f"--db {db}: there is no such file; the stack of `make up` keeps var/registry.sqlite."
        )
    engine = open_engine(db, secret("QILU_DB_PASSWORD"))
    with answering(db):
        findings = auditing.audit(engine)
        _print_lines(findings)
        if findings and repair:
            changes, _ = auditing.repair(engine, dry=True)
            console().print(f"The repair makes {len(changes)} changes:")
            _print_lines(changes)
            if changes and (yes or typer.confirm("Make these changes?")):
                changes, findings = auditing.repair(engine, dry=False)
                console().print(f"{len(changes)} changes made; the audit log has an entry. What is left:")
                _print_lines(findings or ["nothing"])
    if findings:
        raise QiluError(
            f"{len(findings)} findings; `qilu platform audit --repair` shows what would make them agree."
        )
    console().print("The ledger, the counters and the registry agree.")


def _print_lines(lines: Iterable[object]) -> None:
    for line in lines:
        console().print(str(line), highlight=False, markup=False, soft_wrap=True)


@app.command()
def backup(copy: Annotated[Path, typer.Argument(help="The new file")], db: Db = _REGISTRY) -> None:
    """Copy an embedded registry (SQLite) while the platform serves.

    For PostgreSQL use pg_dump: docs/operations.md.

    Example: qilu platform backup registry-2026-01-31.sqlite --db sqlite:///var/registry.sqlite
    """
    from qilu_platform.database.backup import back_up

    back_up(db, copy)
    console().print(f"{copy}: {copy.stat().st_size:,} bytes", highlight=False, markup=False)


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="A .csv or .ndjson file; .gz is read, too")
    ],
    kind: Annotated[str, typer.Option(help="units or enterprises")] = "units",
    platform: Platform = LOCAL_PLATFORM,
    job: Annotated[
        str | None, typer.Option(help="Id of an import to continue; default: a new import")
    ] = None,
    errors: Annotated[Path | None, typer.Option(help="Write the bad lines to this file (NDJSON)")] = None,
    as_json: Json = False,
) -> None:
    """Register enterprises or units from a file.

    The key comes from QILU_API_KEY. The import continues after a lost connection; existing rows stay as they
    are. Exit code 1 if the file has bad lines.

    Example: qilu platform import units.csv --kind units --errors bad.ndjson
    """
    from qilu_common.secrets import secret
    from qilu_platform.client import Platform as Client
    from qilu_platform.client import content_type
    from rich.console import Console

    from qilu.progress import file_bar

    if kind not in ("units", "enterprises"):
        raise ConfigError(f"--kind {kind!r} cannot be imported: use units or enterprises.")
    content_type(file)
    with Client(platform, secret("QILU_API_KEY")) as registry:
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


@app.command()
def command(
    unit: Annotated[str, typer.Argument(help="Id of the unit")],
    command: Annotated[str, typer.Argument(help="start, stop, reset, set_point or fault")],
    name: Annotated[str | None, typer.Argument(help="Name of the set point or fault")] = None,
    value: Annotated[
        float | None, typer.Argument(help="Value of the set point, or severity of the fault (up to 1)")
    ] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="Duration of a fault, such as 90s, 2h or 30d")
    ] = None,
    onset: Annotated[
        str | None, typer.Option(help="Time in which a fault develops, such as 5s; default: as usual for it")
    ] = None,
    platform: Platform = LOCAL_PLATFORM,
    as_json: Json = False,
) -> None:
    """Send a command to a unit and wait up to ten seconds for its answer.

    The key, with the role operator, comes from QILU_API_KEY. Exit code 1 if the unit refuses the command.

    Example: qilu platform command 370202-motor-0000123 set_point load 60
    """
    from qilu_common.secrets import secret
    from qilu_platform.client import Platform as Client

    duration_s = None if duration is None else flags.duration_s(duration)
    onset_s = None if onset is None else flags.duration_s(onset)
    with Client(platform, secret("QILU_API_KEY")) as client:
        done = client.command(unit, command, name, value, duration_s, onset_s, wait_s=10.0)
    if as_json:
        print_json(done)
    elif done.holds_from_ms is not None:
        start = datetime.fromtimestamp(done.holds_from_ms / 1000, UTC)
        console().print(f"Accepted; it holds from {start:%F %T} UTC on.")
    elif done.state == "sent":
        console().print("Sent; there is no answer yet. GET /v1/units/{id}/commands shows it when it comes.")
    if done.state == "refused":
        raise QiluError(f"{unit} refuses {command}: {done.reason}")
