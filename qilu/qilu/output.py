"""What commands print for programs."""

from __future__ import annotations

import sys

import msgspec


def print_json(value: object) -> None:
    """One line of JSON: in UTF-8, whatever the terminal's encoding."""
    line = msgspec.json.encode(value) + b"\n"
    if hasattr(sys.stdout, "buffer"):
        sys.stdout.flush()
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    else:
        sys.stdout.write(line.decode())
