"""`qilu platform certificates`: client certificates of edge nodes."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from qilu_common.addresses import LOCAL_PLATFORM
from qilu_common.secrets import secret
from qilu_contract.errors import ConfigError

from qilu.commands.options import Json, Platform
from qilu.output import console, print_json

app = typer.Typer(
    no_args_is_help=True, help="Client certificates of edge nodes (with a key in QILU_API_KEY)."
)


@app.command()
def issue(
    enterprise: Annotated[str, typer.Argument(help="Enterprise id, which is the edge node's id")],
    csr: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Certificate signing request (PEM); default: a new key"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; it must not exist")] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="Validity in days")] = 365,
    platform: Platform = LOCAL_PLATFORM,
) -> None:
    """Issue a client certificate for the edge node of an enterprise.

    Writes ENTERPRISE.zip: key, certificate and a script that publishes. With --csr, writes the certificate
    only: ENTERPRISE.crt. To renew, issue another one before the first one ends.

    Example: qilu platform certificates issue my-works
    """
    from qilu_platform.client import Platform as Client

    file = out if out is not None else Path(f"{enterprise}.{'zip' if csr is None else 'crt'}")
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{file} is there already: name another one with --out.") from error
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}.") from error
    try:
        with os.fdopen(handle, "wb") as written, Client(platform, secret("QILU_API_KEY")) as client:
            if csr is None:
                written.write(client.certificate_bundle(enterprise, days))
            else:
                request = csr.read_text(encoding="utf-8", errors="replace")
                written.write(client.sign_certificate(enterprise, request, days).certificate.encode())
    except BaseException:
        file.unlink()
        raise
    console().print(str(file), highlight=False, markup=False)


@app.command("list")
def list_(
    enterprise: Annotated[str | None, typer.Option(help="Only certificates of this enterprise")] = None,
    ends_within_days: Annotated[
        int | None,
        typer.Option(min=0, max=36_500, help="Only valid certificates that end within this many days"),
    ] = None,
    platform: Platform = LOCAL_PLATFORM,
    as_json: Json = False,
) -> None:
    """List certificates.

    Example: qilu platform certificates list --ends-within-days 30
    """
    from qilu_platform.client import Platform as Client
    from rich.table import Table

    with Client(platform, secret("QILU_API_KEY")) as client:
        found = list(client.certificates(enterprise, ends_within_days))
    if as_json:
        print_json(found)
        return
    table = Table("id", "enterprise", "state", "ends")
    for item in found:
        ends = datetime.fromtimestamp(item.ends_ms / 1000, UTC).isoformat(" ", "minutes")
        table.add_row(item.id, item.enterprise, item.state, ends)
    console().print(table)


@app.command()
def revoke(
    id_: Annotated[str, typer.Argument(metavar="ID", help="Id of the certificate to revoke")],
    platform: Platform = LOCAL_PLATFORM,
) -> None:
    """Revoke a certificate, for good.

    Example: qilu platform certificates revoke 3d5b0a9c1e2f47586a7b8c9d0e1f2a3b4c5d6e7f
    """
    from qilu_platform.client import Platform as Client

    with Client(platform, secret("QILU_API_KEY")) as client:
        client.revoke_certificate(id_)
    console().print(f"{id_} is revoked.", highlight=False, markup=False)
