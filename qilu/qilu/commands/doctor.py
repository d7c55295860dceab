"""`qilu doctor`: is this machine ready for the embedded stack?"""

from __future__ import annotations

from pathlib import Path

import typer
from qilu_common.addresses import BROKER_PORT, BROKER_TLS_PORT, GATEWAY_PORT, PLATFORM_PORT

from qilu.commands.options import Json, State
from qilu.output import console, print_json

_PORTS = (BROKER_PORT, BROKER_TLS_PORT, PLATFORM_PORT, GATEWAY_PORT)
_SIGNS = {"good": "[green]✓[/]", "note": "[yellow]•[/]", "bad": "[bold red]✗[/]"}


def doctor(state: State = Path("var"), as_json: Json = False) -> None:
    """Check this machine for what the embedded stack needs, and say how to fix what is missing.

    Example: qilu doctor
    """
    from qilu.doctor import examine

    findings = list(examine(state, _PORTS))
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            advice = f" [dim]— {finding.advice}[/]" if finding.advice else ""
            console().print(
                f"{_SIGNS[finding.verdict]} {finding.what}{advice}", soft_wrap=True, highlight=False
            )
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)
