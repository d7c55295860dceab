"""The reading: the unit of account."""

from __future__ import annotations

import msgspec

Value = float | int | bool

MIN_TIME_MS = 10**12
"""The first millisecond that is believed, in September 2001: every later time has 13 digits, so that seconds,
and the time of a clock that was never set, are not taken for it."""
MAX_TIME_MS = 2**63 // 1_000_000
"""The last millisecond that InfluxDB can store, in the year 2262: its times are nanoseconds in 64 bits."""


class Reading(msgspec.Struct, frozen=True):
    """One unit, one timestamp (UTC, ms), its signals."""

    unit: str
    ts_ms: int
    values: dict[str, Value]
