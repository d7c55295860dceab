"""The unit of account."""

from __future__ import annotations

import msgspec

Value = float | int | bool

MAX_TIME_MS = 2**63 // 1_000_000
"""The last millisecond that InfluxDB can store, in the year 2262: its times are nanoseconds in 64 bits."""


class Reading(msgspec.Struct, frozen=True):
    """One unit, one timestamp (UTC, ms), its signals."""

    unit: str
    ts_ms: int
    values: dict[str, Value]
