"""`qilu platform keys`: API keys of the platform."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_common.addresses import LOCAL_PLATFORM

from qilu import flags
from qilu.commands.options import Json, Platform
from qilu.output import console, print_json

if TYPE_CHECKING:
    from qilu_platform.client import NewKey
    from qilu_platform.client import Platform as Client

app = typer.Typer(no_args_is_help=True, help="API keys of the platform (with an admin key in QILU_API_KEY).")


def _client(platform: str) -> Client:
    from qilu_common.secrets import secret
    from qilu_platform.client import Platform as Client

    return Client(platform, secret("QILU_API_KEY"))


def _show_key(made: NewKey, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        print_json(made)
        return
    console().print(f"{made.id} {made.key}", soft_wrap=True, highlight=False, markup=False)
    Console(stderr=True).print("The key is shown this once; the platform keeps a hash of it only.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for")],
    role: Annotated[str, typer.Option(help="admin, operator, viewer, enterprise, ingest or fleet")],
    enterprise: Annotated[str | None, typer.Option(help="Enterprise id, for the role enterprise")] = None,
    platform: Platform = LOCAL_PLATFORM,
    as_json: Json = False,
) -> None:
    """Create a key and show it once.

    Example: qilu platform keys create "line 3 gateway" --role ingest
    """
    with _client(platform) as client:
        _show_key(client.create_key(name, role, enterprise), as_json)


@app.command("list")
def list_(platform: Platform = LOCAL_PLATFORM, as_json: Json = False) -> None:
    """List the keys, without their secrets: the platform keeps hashes only.

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


@app.command()
def rotate(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the key to replace")],
    grace: Annotated[
        str, typer.Option(help="How long the old key stays valid, such as 90s, 2h or 30d")
    ] = "0s",
    platform: Platform = LOCAL_PLATFORM,
    as_json: Json = False,
) -> None:
    """Replace a key by a new one with the same role and show it once.

    Example: qilu platform keys rotate key-0d1f2a3b4c5d --grace 2h
    """
    with _client(platform) as client:
        _show_key(client.rotate_key(id_, int(flags.duration_s(grace))), as_json)


@app.command()
def revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the key to revoke")],
    platform: Platform = LOCAL_PLATFORM,
) -> None:
    """Revoke a key at once, for good.

    Example: qilu platform keys revoke key-0d1f2a3b4c5d
    """
    with _client(platform) as client:
        client.revoke_key(id_)
    console().print(f"{id_} is revoked.", highlight=False, markup=False)
