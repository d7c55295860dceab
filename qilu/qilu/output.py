"""Output of commands, for people and for programs."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.console import Console


@cache
def console() -> Console:
    """The console for people. Imported late, so that a service that prints nothing starts without rich."""
    from rich.console import Console

    return Console()


def print_json(value: object) -> None:
    """One line of JSON: in UTF-8, whatever the terminal's encoding."""
    line = msgspec.json.encode(value) + b"\n"
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.flush()
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(line.decode())
