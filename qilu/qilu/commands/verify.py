"""`qilu verify`: compare a run with what the store holds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_contract.errors import ConfigError, QiluError

from qilu.commands.options import CellsFile, Json, StoreUrl
from qilu.output import console, print_json

if TYPE_CHECKING:
    from qilu_devices.run.manifest import Manifest

    from qilu.run_record import RunRecord
    from qilu.verify import Verdict


def verify(
    run: Annotated[
        list[Path],
        typer.Option("--run", help="The run's manifest: run.json, or its folder; once for each shard of it"),
    ],
    store: Annotated[str | None, StoreUrl.__metadata__[0]] = None,
    cells: CellsFile = None,
    as_json: Json = False,
) -> None:
    """Compute a run again and compare it with the store, value by value.

    Exit code 1 if a reading is lost, duplicated, altered or unexpected. A DuckDB file can be read once the
    stack has stopped.

    Example: qilu verify --run var/devices/run.json --store duckdb:///var/readings.duckdb
    """
    # The manifest holds the run's own classes.
    if (file := run[0] / "run.json" if run[0].is_dir() else run[0]).is_file():
        os.environ["QILU_CLASSES"] = str(file)
    if (store is None) == (cells is None):
        raise ConfigError("Give --store, or --cells for a run over several cells.")
    if cells is not None:
        from qilu.verify_cells import verify_cells

        _report(verify_cells(run, cells), as_json)
        return
    from qilu_devices.run.manifest import load_manifest

    from qilu.run_record import RunRecord, is_live_run

    if len(run) > 1:
        raise ConfigError("More than one --run needs --cells.")
    source = RunRecord.load(run[0]) if is_live_run(run[0]) else load_manifest(run[0])
    assert store is not None
    if store.startswith("duckdb:///") and not Path(store.removeprefix("duckdb:///")).is_file():
        raise ConfigError(
            f"--store {store}: there is no such file; the stack of `make up` keeps var/readings.duckdb."
        )
    _report(asyncio.run(_compare(source, store)), as_json)


def _report(verdict: Verdict, as_json: bool) -> None:
    """Print the verdict. Raises QiluError unless all is well."""
    if as_json:
        print_json(verdict.as_dict())
    else:
        _show(verdict)
    total = verdict.total
    if not total.good:
        raise QiluError(
            f"of {total.expected} expected readings {total.lost} are lost and {total.altered} altered; "
            f"{total.duplicated} are stored twice, {total.unexpected} should not be there."
        )


async def _compare(source: RunRecord | Manifest, store: str) -> Verdict:
    from qilu_common.secrets import secret
    from qilu_stores import open_store

    from qilu.progress import unit_bar
    from qilu.run_record import RunRecord
    from qilu.verify import verify as compare
    from qilu.verify_live import verify_live

    async with open_store(store, secret("QILU_INFLUX_TOKEN")) as opened:
        if isinstance(source, RunRecord):
            with unit_bar(console(), "verifying") as shown:
                return await verify_live(source, opened, shown)
        return await compare(source, opened)


def _show(verdict: Verdict) -> None:
    """Print totals, by class and by county; counties without a difference are left out."""
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
        console().print(f"{verdict.others:,} points of units that do not belong to the run were ignored.")
    if verdict.dropped:
        console().print(
            f"{len(verdict.dropped):,} edge nodes dropped {sum(verdict.dropped.values()):,} readings at the "
            "bound of their buffer: as many missing readings of theirs do not count as lost.",
            soft_wrap=True,
        )
