"""`qilu store`: questions about a store."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from qilu_contract.errors import QiluError

from qilu.commands.options import Json
from qilu.output import console, print_json

app = typer.Typer(help="Check a store for readings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Makes `check` a command of the group."""


@app.command()
def check(
    url: Annotated[str, typer.Argument(help="Store URL: influxdb://host:8086/database or duckdb:///path")],
    as_json: Json = False,
) -> None:
    """Run the contract suite of stores against a server.

    Shows whether a store can hold this system's readings. Writes about 60,000 points of units whose names
    begin with "check-": use an empty database. QILU_INFLUX_TOKEN logs in. Exit code 1 if a check fails.

    Example: qilu store check influxdb://127.0.0.1:8086/qilu_check
    """
    found = asyncio.run(_run(url))
    if as_json:
        print_json({name: reason for name, _, reason in found})
    else:
        _show(found)
    failed = sum(reason is not None for _, _, reason in found)
    if failed:
        raise QiluError(f"{failed} of {len(found)} checks fail on this store.")


async def _run(url: str) -> list[tuple[str, str, str | None]]:
    """Name, contract and reason of a failure (None: it holds) of each check. Raises Retryable for a store
    that is unavailable."""
    from secrets import token_hex

    from qilu_common.secrets import secret
    from qilu_contract.wire.clock import wall_ms
    from qilu_stores import checks, open_store

    from qilu.progress import unit_bar

    found: list[tuple[str, str, str | None]] = []
    run = token_hex(4)
    base_ms = (wall_ms() // checks.WEEK_MS - 1) * checks.WEEK_MS
    async with open_store(url, secret("QILU_INFLUX_TOKEN")) as store:
        await store.ping()
        with unit_bar(console(), "checking") as shown:
            for done, each in enumerate(checks.CHECKS):
                reason = None
                for way, by_column in (("", False), (" (written by column)", True)):
                    name = f"check-{run}-{each.__name__}-{int(by_column)}"
                    try:
                        await each(checks.Probe(store, name, base_ms, by_column, checks.WAIT_S))
                    except QiluError as error:
                        reason = f"{error}{way}"
                        break
                shown(done + 1, len(checks.CHECKS))
                found.append((each.__name__.replace("_", " "), (each.__doc__ or "").strip(), reason))
    return found


def _show(found: list[tuple[str, str, str | None]]) -> None:
    from rich.table import Table

    table = Table("", "a store …", "")
    for name, contract, reason in found:
        table.add_row(name, contract, "[green]holds[/green]" if reason is None else f"[red]{reason}[/red]")
    console().print(table)
