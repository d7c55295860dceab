"""Quality of a data set, from the accounts that the parts keep: registry, store, roll-ups, device problems.

- due: readings that the class's interval calls for, from each unit's first reading on, until it is suspended
  or retired;
- stored: readings in the store;
- late: stored, but not in the roll-up of their minute, which was closed when they arrived;
- refused: dead letters, counted by the time of receipt. Gateways report them for the owners of devices; they
  keep no sample time, because a refused reading may have none.
"""

from __future__ import annotations

from typing import Any

from qilu_contract.catalogue.key_signals import MINUTE_MS
from qilu_contract.errors import Reason
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.store import MAX_ROWS, PlatformStore
from sqlalchemy import ColumnElement, Connection, case, func, select

from qilu_platform.assets.data_sets import DataSet, units_of
from qilu_platform.database.schema import device_problems, units

DAY_MS = 86_400_000
_STEP_MS = DAY_MS // 4
"""Of a question for roll-ups: a point per minute and gateway, at most MAX_ROWS."""
MAX_SPAN_MS = 31 * DAY_MS
_REASONS = [str(reason) for reason in Reason]


async def end_ms(store: PlatformStore, data: DataSet) -> int | None:
    """After the latest reading; None without readings."""
    row = await store.latest(data.equipment.name, _tags(data))
    return None if row is None else row.ts_ms + 1


def whole_minutes(start_ms: int, end_ms: int) -> tuple[int, int]:
    """The period, widened to whole minutes."""
    return start_ms // MINUTE_MS * MINUTE_MS, min(-(-end_ms // MINUTE_MS) * MINUTE_MS, MAX_TIME_MS)


def _tags(data: DataSet) -> dict[str, str]:
    return {} if data.level == "province" else {data.level: data.place}


async def stored(store: PlatformStore, data: DataSet, start_ms: int, end_ms: int) -> dict[str, int]:
    """Counts in the store: {"stored", "late", "rolled_until_ms"}. `late` is about readings before
    `rolled_until_ms`: later minutes may be open."""
    if start_ms >= end_ms:
        return {"stored": 0, "late": 0, "rolled_until_ms": start_ms}
    tags = {
        "level": data.level,
        "place": data.place,
        "class": data.equipment.name,
        "signal": data.equipment.base_signal.name,
    }
    newest = await store.latest("fleet", tags)
    until_ms = min(end_ms, max(start_ms, 0 if newest is None else newest.ts_ms + MINUTE_MS))
    rolled = 0
    for step_ms in range(start_ms, until_ms, _STEP_MS):
        points = await store.newest("fleet", tags, step_ms, min(step_ms + _STEP_MS, until_ms), MAX_ROWS)
        rolled += sum(int(point.fields.get("n", 0)) for point in points)
    before = await _count(store, data, start_ms, until_ms)
    return {
        "stored": before + await _count(store, data, until_ms, end_ms),
        "late": max(0, before - rolled),
        "rolled_until_ms": until_ms,
    }


async def _count(store: PlatformStore, data: DataSet, start_ms: int, end_ms: int) -> int:
    if start_ms >= end_ms:
        return 0
    by_county = await store.count_by(data.equipment.name, "county", start_ms, end_ms)
    return sum(by_county.get(county, 0) for county in data.counties)


def due(connection: Connection, data: DataSet, start_ms: int, end_ms: int) -> int:
    """Readings that should be there."""
    rows = units_of(data)
    interval_ms = data.equipment.base_interval_s * 1000
    ended_ms = func.coalesce(rows.c.retired_ms, rows.c.suspended_ms, end_ms)
    stop = case((ended_ms < end_ms, ended_ms), else_=end_ms)

    def before(moment: Any) -> ColumnElement[int]:
        """Number of samples before a moment."""
        since = moment - rows.c.on_cloud_ms
        return case((since > 0, (since + (interval_ms - 1)) // interval_ms), else_=0)

    made = before(stop) - before(start_ms)
    return int(connection.scalar(select(func.sum(case((made > 0, made), else_=0)))) or 0)


def refused(connection: Connection, data: DataSet) -> dict[str, dict[str, int]]:
    """{"refused", "refused_unassigned"} by reason. The second has those of the place that name no registered
    unit, and so belong to no class."""
    table = device_problems
    joined = table.outerjoin(units, units.c.id == table.c.unit)
    query = (
        select(units.c["class"], table.c.reason, func.sum(table.c.count))
        .select_from(joined)
        .where(table.c.county.in_(data.counties), table.c.reason.in_(_REASONS))
        .group_by(units.c["class"], table.c.reason)
    )
    found: dict[str, dict[str, int]] = {"refused": {}, "refused_unassigned": {}}
    for class_, reason, count in connection.execute(query):
        if class_ in (None, data.equipment.name):
            found["refused_unassigned" if class_ is None else "refused"][reason] = int(count)
    return found


def shares(figures: dict[str, int]) -> dict[str, float | None]:
    """Completeness and timeliness; None where nothing is due or stored."""
    wanted, there = figures["due"], figures["stored"]
    return {
        "completeness": min(1.0, there / wanted) if wanted else None,
        "timeliness": 1.0 - figures["late"] / there if there else None,
    }
