"""The gauge of active units: number of units for each hour of their last reading.

An hour is that of a reading's own time, so a run at speed fills hours that are ahead of the wall's clock.
They count as the present while such reports arrive; after the end of a run they expire.
"""

from __future__ import annotations

from collections import Counter

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, case, func, select

from qilu_platform.database.schema import activity
from qilu_platform.database.statements import insert_rows

HOUR_MS = 3_600_000
ACTIVE_HOURS = 24
"""A unit whose last reading is no older is active."""
BELIEVED_MS = 2 * HOUR_MS
"""An hour ahead of the wall's clock is the present while a report of it is no older: gateways report each
unit once an hour, by the run's clock, which goes no slower."""


def wall_hour() -> int:
    return wall_ms() // HOUR_MS


def move(connection: Connection, moved: Counter[int], *, heard: bool = False) -> None:
    """Add to the hours' units, in the order of hours. `heard` says that readings were reported just now, and
    not that units changed their state."""
    now_ms = wall_ms()
    steps = [
        {"hour": hour, "units": step, "heard_ms": now_ms if heard and step > 0 else 0}
        for hour, step in sorted(moved.items())
        if step
    ]
    if steps:
        insert = insert_rows(connection, activity, steps)
        changes = {"units": activity.c.units + insert.excluded["units"]}
        if heard:
            later = insert.excluded["heard_ms"] > 0
            changes["heard_ms"] = case((later, insert.excluded["heard_ms"]), else_=activity.c.heard_ms)
        connection.execute(insert.on_conflict_do_update(index_elements=["hour"], set_=changes))


def active_hours(connection: Connection) -> dict[int, int]:
    """The hours whose units are active, and the number of those units: with a reading within a day before the
    present, and within a day by the wall clock."""
    now_ms = wall_ms()
    wall = now_ms // HOUR_MS
    columns = (activity.c.hour, activity.c.units, func.coalesce(activity.c.heard_ms, 0))
    query = select(*columns).where(activity.c.units > 0, activity.c.hour > wall - ACTIVE_HOURS)
    rows = connection.execute(query).all()
    present = max([wall, *(hour for hour, _, heard_ms in rows if heard_ms > now_ms - BELIEVED_MS)])
    return {
        hour: number
        for hour, number, heard_ms in rows
        if hour > present - ACTIVE_HOURS and (hour <= wall or heard_ms > now_ms - ACTIVE_HOURS * HOUR_MS)
    }
