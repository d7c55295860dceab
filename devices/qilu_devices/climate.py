"""Local time and season of the province, as functions of UTC milliseconds."""

from __future__ import annotations

import numpy as np

from qilu_devices.exact import cos_turns
from qilu_devices.kernel import Times
from qilu_devices.noise import Values

_SHANGHAI_MS = 8 * 3_600_000  # Asia/Shanghai has had no daylight saving since 1991
_DAY_MS = 86_400_000
_YEAR_DAYS = 365.25


def local_hour(t_ms: Times) -> Values:
    """Hour of the local day, 0 ≤ h < 24."""
    return np.asarray(((t_ms + _SHANGHAI_MS) % _DAY_MS) / 3_600_000.0)


def weekday(t_ms: Times) -> Times:
    """Local weekday, Monday 0 (1 January 1970 was a Thursday)."""
    return np.asarray(((t_ms + _SHANGHAI_MS) // _DAY_MS + 3) % 7)


def season(t_ms: Times) -> Values:
    """-1 in mid-January, the coldest time, 1 in mid-July."""
    days = (t_ms + _SHANGHAI_MS) / _DAY_MS
    return -cos_turns((days - 15.0) / _YEAR_DAYS)
