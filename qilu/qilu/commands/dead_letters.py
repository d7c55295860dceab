"""`qilu gateway dead-letters`: the messages that the gateway could not accept."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from qilu_contract.errors import ConfigError, QiluError

from qilu.commands.options import Json, State
from qilu.output import console, print_json

app = typer.Typer(no_args_is_help=True, help="Messages that the gateway could not accept.")

Id = Annotated[
    int | None, typer.Option("--id", min=1, max=2**63 - 1, help="Only the dead letter with this id")
]
ByReason = Annotated[str | None, typer.Option("--reason", help="Only dead letters with this reason")]
ByUnit = Annotated[str | None, typer.Option("--unit", help="Only dead letters of this unit")]
All = Annotated[bool, typer.Option("--all", help="All dead letters")]


@app.command("list")
def list_(
    state: State = Path("var/gateway"),
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Number of dead letters, newest first")] = 20,
    reason: ByReason = None,
    unit: ByUnit = None,
    as_json: Json = False,
) -> None:
    """List dead letters with their reasons, also while the gateway runs.

    Example: qilu gateway dead-letters list --limit 5
    """
    from rich.markup import escape
    from rich.table import Table

    from qilu.dead_letters import read

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


@app.command()
def show(
    id: Annotated[int, typer.Argument(min=1, max=2**63 - 1, help="Id, as `list` shows it")],
    state: State = Path("var/gateway"),
    as_json: Json = False,
) -> None:
    """Show one dead letter with its payload.

    Example: qilu gateway dead-letters show 17
    """
    from qilu.dead_letters import read

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


@app.command()
def replay(
    state: State = Path("var/gateway"),
    id: Id = None,
    reason: ByReason = None,
    unit: ByUnit = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Have the running gateway process dead letters again, once their cause is fixed.

    Readings that it accepts now are stored and leave the list; the others stay.

    Example: qilu gateway dead-letters replay --reason unknown_unit
    """
    _move("replay", state, id, reason, unit, everything, as_json)


@app.command()
def purge(
    state: State = Path("var/gateway"),
    id: Id = None,
    reason: ByReason = None,
    unit: ByUnit = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters, whether or not the gateway runs.

    Example: qilu gateway dead-letters purge --reason bad_topic
    """
    _move("purge", state, id, reason, unit, everything, as_json)


def _move(
    what: Literal["replay", "purge"],
    state: Path,
    id: int | None,
    reason: str | None,
    unit: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    from qilu.dead_letters import move

    if everything == any(choice is not None for choice in (id, reason, unit)):
        raise ConfigError("Say which dead letters are meant: --id, --reason, --unit or --all.")
    outcome = asyncio.run(move(what, state, id=id, reason=reason, unit=unit))
    if as_json:
        print_json(outcome)
        return
    done = "accepted now" if what == "replay" else "deleted"
    kept = f", {outcome.kept:,} stay" if what == "replay" else ""
    console().print(f"{outcome.done:,} dead letters with {outcome.readings:,} readings {done}{kept}.")
