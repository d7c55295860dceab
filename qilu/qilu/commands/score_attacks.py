"""`qilu score-attacks`: how well the platform's security events detect the attacks of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from qilu_common.addresses import LOCAL_PLATFORM
from qilu_contract.errors import ConfigError

from qilu.commands.options import Json, Platform
from qilu.output import console, print_json


def score_attacks(
    run: Annotated[Path, typer.Option("--run", help="The run's manifest: run.json, or its folder")],
    platform: Platform = LOCAL_PLATFORM,
    as_json: Json = False,
) -> None:
    """Score the platform's security events against the attacks of a run.

    Prints precision and recall by kind of event, over pairs of an enterprise and a kind. Needs a key that may
    read (QILU_API_KEY), and a run whose scenario has the transport fault 'attack'.

    Example: qilu score-attacks --run var/devices
    """
    from qilu_common.secrets import secret
    from qilu_devices.run.manifest import load_manifest
    from qilu_platform.client import Platform as Client
    from rich.table import Table

    from qilu.attack_score import attacked_pairs, detected_pairs, score

    manifest = load_manifest(run)
    attacked = attacked_pairs(manifest.transport_truth())
    if not attacked:
        raise ConfigError(f"{run}: the run has no attack: its scenario needs 'attack' under 'transport'.")
    with Client(platform, secret("QILU_API_KEY")) as client:
        found = score(
            attacked,
            detected_pairs(manifest, lambda kind: client.security_events(kind=kind).by_enterprise),
        )
    if as_json:
        print_json({kind: counts.as_dict() for kind, counts in found.items()})
        return
    table = Table("", "attacked", "detected", "both", "precision", "recall")
    for column in table.columns[1:]:
        column.justify = "right"
    for kind, counts in found.items():
        shares = ("" if each is None else f"{each:.3f}" for each in (counts.precision, counts.recall))
        table.add_row(kind, f"{counts.attacked:,}", f"{counts.detected:,}", f"{counts.both:,}", *shares)
    console().print(table)
