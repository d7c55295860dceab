"""Reading the registry: one thing by its id, or pages in the order of ids. A page costs its own length,
however large the registry is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qilu_contract.catalogue import CATALOGUE
from qilu_contract.places import COUNTIES, city_of
from sqlalchemy import ColumnElement, Connection, RowMapping, Table, select, union_all

from qilu_platform.schema import centres, contracts, enterprises, units


@dataclass(frozen=True, slots=True)
class Filters:
    """What a page is restricted to; None leaves it open."""

    county: str | None = None
    city: str | None = None
    class_: str | None = None
    enterprise: str | None = None
    industry: str | None = None
    state: str | None = None
    only: str | None = None
    """The enterprise that the caller is confined to."""


def get_row(connection: Connection, table: Table, id_: str) -> dict[str, Any] | None:
    row = connection.execute(select(table).where(table.c.id == id_)).one_or_none()
    return None if row is None else shown(table, row._mapping)


def page(
    connection: Connection, table: Table, filters: Filters, cursor: str | None, limit: int
) -> dict[str, Any]:
    """{"items", "next"}: `limit` things whose ids come after `cursor`; `next` is None on the last page."""
    owned = filters.enterprise is not None or filters.only is not None
    cells = _cells(filters) if table is units and not owned else []
    where = _conditions(table, filters) + ([] if cells else _places(table, filters))
    if cursor is not None:
        where.append(table.c.id > cursor)
    query = select(table).order_by(table.c.id).limit(limit + 1)
    if cells:
        # A cell is a stretch of one index in the order of ids: merging their beginnings reads no further.
        parts = [
            select(units.c.id)
            .where(units.c.county == county, units.c["class"] == class_, *where)
            .order_by(units.c.id)
            .limit(limit + 1)
            .subquery()
            for county, class_ in cells
        ]
        query = query.where(units.c.id.in_(union_all(*(select(part.c.id) for part in parts))))
    else:
        query = query.where(*where)
    rows = connection.execute(query).all()
    items = [shown(table, row._mapping) for row in rows[:limit]]
    return {"items": items, "next": items[-1]["id"] if len(rows) > limit else None}


def _conditions(table: Table, filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.only is not None:
        found.append((table.c.id if table is enterprises else table.c.enterprise) == filters.only)
    if filters.enterprise is not None:
        found.append(table.c.enterprise == filters.enterprise)
    if filters.industry is not None:
        found.append(table.c.industry == filters.industry)
    if filters.state is not None:
        found.extend(_in_state(filters.state))
    return found


def _places(table: Table, filters: Filters) -> list[ColumnElement[bool]]:
    """The conditions that cells stand for."""
    found: list[ColumnElement[bool]] = []
    if filters.city is not None and table is centres:
        found.append(table.c.city == filters.city)
    elif filters.county is not None or filters.city is not None:
        found.append(table.c.county.in_(_counties(filters)))
    if filters.class_ is not None:
        found.append(table.c["class"] == filters.class_)
    return found


def _in_state(state: str) -> list[ColumnElement[bool]]:
    if state == "retired":
        return [units.c.retired_ms.is_not(None)]
    seen = units.c.on_cloud_ms
    return [units.c.retired_ms.is_(None), seen.is_not(None) if state == "on_cloud" else seen.is_(None)]


def _counties(filters: Filters) -> list[str]:
    return [
        code
        for code, county in COUNTIES.items()
        if filters.county in (None, code) and filters.city in (None, county.city)
    ]


def _cells(filters: Filters) -> list[tuple[str, str]]:
    """Counties × classes that the filters leave; nothing when they leave all."""
    if filters.county is None and filters.city is None and filters.class_ is None:
        return []
    classes = list(CATALOGUE) if filters.class_ is None else [filters.class_]
    return [(county, class_) for county in _counties(filters) for class_ in classes]


def shown(table: Table, row: RowMapping) -> dict[str, Any]:
    """A row as the API shows it."""
    if table is units:
        return {
            "id": row["id"],
            "class": row["class"],
            "enterprise": row["enterprise"],
            "name": row["name"],
            "county": row["county"],
            "city": city_of(row["county"]),
            "industry": row["industry"],
            "state": state_of(row),
            "registered_ms": row["registered_ms"],
            "on_cloud_ms": row["on_cloud_ms"],
            "retired_ms": row["retired_ms"],
        }
    if table is enterprises:
        return dict(row) | {"city": city_of(row["county"])}
    return dict(row)


def state_of(unit: RowMapping) -> str:
    if unit["retired_ms"] is not None:
        return "retired"
    return "registered" if unit["on_cloud_ms"] is None else "on_cloud"


def owner_of(table: Table, row: Mapping[str, Any]) -> str | None:
    """The enterprise that a row belongs to; None for what belongs to all."""
    if table is enterprises:
        return str(row["id"])
    return str(row["enterprise"]) if table in (units, contracts) else None
