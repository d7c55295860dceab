"""How often the catalogue's limits raise alarms: the second table of docs/equipment/realism.md.

.venv/bin/python tests/limit_alarms.py            # prints the table
.venv/bin/python tests/limit_alarms.py --write    # puts it into the page
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.limits import LIMITS, Limit, alarm_limits
from realism_runs import DAY_MS, HOUR_MS, MONDAY_10_H, Array, Series, observed, put

JANUARY_MONDAY = 1_516_550_400_000  # 22 January 2018, 00:00 in Shandong: boilers that heat are lit
MONDAY = MONDAY_10_H - 10 * HOUR_MS
STEP_S = {"boiler": 30, "motor": 20, "compressor": 20, "pump": 10, "pasteuriser": 10}
UNITS = 60
BEGIN, END = "<!-- measured by tests/limit_alarms.py -->\n", "<!-- end of the alarms -->\n"


def alarms(limit: Limit, series: Series, interval_s: int) -> Array:
    """How many alarms each unit raises, by the rules of the gateway."""
    values = series[limit.signal]
    begun, since_s = np.zeros(values.shape[1]), np.full(values.shape[1], -1)
    active = np.zeros(values.shape[1], dtype=np.bool_)
    for k, value in enumerate(values):
        applies = series[limit.while_above_0][k] > 0.0 if limit.while_above_0 else np.ones_like(active)
        past = value > limit.limit if limit.kind == "above" else value < limit.limit
        inside = limit.limit - value if limit.kind == "above" else value - limit.limit
        turning = np.where(active, ~applies | (inside >= limit.back), applies & past)
        since_s = np.where(turning, np.where(since_s < 0, k * interval_s, since_s), -1)
        turns = turning & ((k * interval_s - since_s >= limit.delay_s) | (active & ~applies))
        active ^= turns
        since_s[turns] = -1
        begun += turns & active
    return begun


def day_of(name: str, fault: str, units: int = UNITS) -> Series:
    begin_ms = JANUARY_MONDAY if name == "boiler" else MONDAY
    return observed(name, units, STEP_S[name], DAY_MS // 1000 // STEP_S[name], fault, begin_ms=begin_ms)


def rows() -> Iterator[tuple[str, str, str, Array]]:
    """Class, fault (none: healthy), signal, and alarms of each unit in a day."""
    for name in LIMITS:
        limits = alarm_limits(name)
        for fault in ("", *(each.name for each in CATALOGUE[name].faults)) if limits else ():
            series = day_of(name, fault)
            for signal, limit in limits.items():
                yield name, fault, signal, alarms(limit, series, STEP_S[name])
            observed.cache_clear()  # a day of a class is large


def table() -> str:
    text = "| class, fault | limit | units that raised it | alarms per unit and day |\n|---|---|---|---|\n"
    for name, fault, signal, begun in rows():
        if not fault or begun.any():
            share = f"{(begun > 0.0).mean():.0%}".replace("%", " %")
            text += f"| {name}, {fault or 'healthy'} | {signal} | {share} | {begun.mean():.1f} |\n"
    return text


if __name__ == "__main__":
    if "--write" in sys.argv:
        put(BEGIN, table(), END)
    else:
        print(table())  # noqa: T201
