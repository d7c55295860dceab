"""Signals of generic units, as gateways report them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qilu_contract.catalogue.generic import GENERIC, MAX_UNIT_SIGNALS
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, func, select

from qilu_platform.database.schema import units
from qilu_platform.database.schema_gateways import learned_signals as table
from qilu_platform.database.statements import among, insert_rows


def record(connection: Connection, signals: Sequence[tuple[str, str, str]]) -> None:
    """Keep signals (unit, name, unit of measurement) of generic units, at most MAX_UNIT_SIGNALS for each. A
    unit of measurement replaces an earlier one unless it is empty."""
    ids = sorted({unit for unit, _, _ in signals})
    generic = set(
        connection.scalars(
            select(units.c.id).where(among(connection, units.c.id, ids), units.c["class"] == GENERIC)
        )
    )
    known = {unit: set(names) for unit, names in names_of(connection, sorted(generic)).items()}
    now_ms, rows = wall_ms(), {}
    for unit, name, measured_in in signals:
        if unit not in generic:
            continue
        names = known.setdefault(unit, set())
        if name in names or len(names) < MAX_UNIT_SIGNALS:
            names.add(name)
            rows[unit, name] = {
                "unit": unit, "name": name, "measured_in": measured_in, "since_ms": now_ms
            }  # fmt: skip
    if not rows:
        return
    # In key order, so that two gateways wait for each other instead of deadlocking.
    insert = insert_rows(connection, table, [rows[key] for key in sorted(rows)])
    given = func.coalesce(func.nullif(insert.excluded.measured_in, ""), table.c.measured_in)
    connection.execute(
        insert.on_conflict_do_update(index_elements=["unit", "name"], set_={"measured_in": given})
    )


def names_of(connection: Connection, ids: Sequence[str]) -> dict[str, list[str]]:
    """The names of the signals of each of these units that has sent some."""
    found: dict[str, list[str]] = {}
    if ids:
        query = select(table.c.unit, table.c.name).where(among(connection, table.c.unit, ids))
        for unit, name in connection.execute(query):
            found.setdefault(unit, []).append(name)
    return found


def signals_of(connection: Connection, unit: str) -> list[dict[str, Any]]:
    """A unit's signals, in the order in which they were learned."""
    query = select(table.c.name, table.c.measured_in, table.c.since_ms).where(table.c.unit == unit)
    rows = connection.execute(query.order_by(table.c.since_ms, table.c.name))
    return [dict(row._mapping) for row in rows]
