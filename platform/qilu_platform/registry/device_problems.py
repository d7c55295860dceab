"""Problems of devices: why gateways refused, or only partly took, what units sent.

One row for each enterprise, unit and reason. A device that keeps sending the same mistake changes one row; an
enterprise has MAX_ROWS at most, and its oldest ones make room.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select, tuple_

from qilu_platform.database.schema import device_problems as table
from qilu_platform.database.statements import insert_rows
from qilu_platform.models.bodies import ProblemIn

MAX_ROWS = 1_000
"""Of one enterprise."""
_SHOWN = ("unit", "enterprise", "reason", "count", "first_ms", "last_ms", "excerpt")


def record(connection: Connection, problems: Sequence[ProblemIn]) -> None:
    """Add what a gateway counted since it last reported; several entries of one row add up."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in problems:
        row = each.model_dump()
        key = (each.enterprise, each.unit, each.reason)
        seen = rows.setdefault(key, row | {"count": 0, "first_ms": each.last_ms})
        count, first_ms = seen["count"] + each.count, min(seen["first_ms"], each.last_ms)
        if each.last_ms >= seen["last_ms"]:
            seen.update(row)
        seen.update(count=count, first_ms=first_ms)
    if not rows:
        return
    # In key order, so that two gateways that report the same rows wait for each other instead of deadlocking.
    insert = insert_rows(connection, table, [rows[key] for key in sorted(rows)])
    new, present = insert.excluded, table.c
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["enterprise", "unit", "reason"],
            set_={
                "county": new.county,
                "count": present.count + new.count,
                "last_ms": new.last_ms,
                "excerpt": new.excerpt,
            },
        )
    )
    for enterprise in sorted({each.enterprise for each in problems}):
        _make_room(connection, enterprise)


def _make_room(connection: Connection, enterprise: str) -> None:
    mine = table.c.enterprise == enterprise
    excess = (connection.scalar(select(func.count()).select_from(table).where(mine)) or 0) - MAX_ROWS
    if excess <= 0:
        return
    oldest = select(table.c.unit, table.c.reason).where(mine).order_by(table.c.last_ms).limit(excess)
    connection.execute(delete(table).where(mine, tuple_(table.c.unit, table.c.reason).in_(oldest)))


def latest(
    connection: Connection, *, unit: str | None = None, enterprise: str | None = None
) -> list[dict[str, Any]]:
    """The problems of a unit, of an enterprise, or of a unit as sent by an enterprise; the latest first."""
    query = select(*(table.c[name] for name in _SHOWN))
    if unit is not None:
        query = query.where(table.c.unit == unit)
    if enterprise is not None:
        query = query.where(table.c.enterprise == enterprise)
    rows = connection.execute(query.order_by(table.c.last_ms.desc(), table.c.reason).limit(MAX_ROWS))
    return [dict(row._mapping) for row in rows]
