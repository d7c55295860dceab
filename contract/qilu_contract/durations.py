"""Durations as people write them: `90s`, `5m`, `2h`, `30d`."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)", re.ASCII)
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def duration_ms(text: str) -> int:
    """A number and its unit (ms, s, m, h or d) as whole milliseconds. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration: write 90s, 5m, 2h or 30d.")
    return round(float(found[1]) * _UNIT_MS[found[2]])
