"""Queries of the registry: one resource by its id, or pages in the order of ids. The cost of a page is
proportional to its length, however large the registry is.

Regular units' ids begin with county and class, so the primary key itself holds every city, county and class
as key ranges, one after the other. Units with other ids are found by a separate index.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.catalogue.places import COUNTIES, city_of
from qilu_contract.wire.identity import identifier
from qilu_contract.wire.ids import id_prefix
from sqlalchemy import Column, ColumnElement, Connection, Row, RowMapping, Table, func, select, union_all

from qilu_platform.counting.activity import HOUR_MS, active_hours
from qilu_platform.database.schema import centres, contracts, enterprises, units

LOOK_AT = 8_000
"""Maximum number of units that one page scans for a filter without an index; then the page ends, possibly
short, with a cursor to continue from."""
_AFTER_ALL = "~"
"""Sorts after every id."""

KeyRange = tuple[str, str]
"""Ids from the first up to, not including, the second."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Filters of a page; None: no filter."""

    county: str | None = None
    city: str | None = None
    class_: str | None = None
    enterprise: str | None = None
    industry: str | None = None
    state: str | None = None
    name: str | None = None
    """How the name begins."""
    id: str | None = None
    kind: str | None = None
    """Of recognitions."""
    only: str | None = None
    """The enterprise that the caller is confined to."""


def get_row(connection: Connection, table: Table, id_: str) -> dict[str, Any] | None:
    row = connection.execute(select(table).where(table.c.id == id_)).one_or_none()
    return None if row is None else shown(table, row._mapping, _active(connection, table))


def page(
    connection: Connection, table: Table, filters: Filters, cursor: str | None, limit: int
) -> dict[str, Any]:
    """{"items", "next"}: up to `limit` things whose ids come after `cursor`; `next` is None on the last
    page."""
    rows, after = rows_after(connection, table, filters, cursor or "", limit)
    active = _active(connection, table)
    return {"items": [shown(table, row._mapping, active) for row in rows], "next": after}


def rows_after(
    connection: Connection, table: Table, filters: Filters, cursor: str, limit: int
) -> tuple[Sequence[Row[Any]], str | None]:
    """The rows of a page, and where the next one begins."""
    where = _conditions(table, filters)
    if table is units and _in_key_ranges(filters):
        return _from_key_ranges(connection, filters, where, cursor, limit)
    if table is enterprises and filters.city is not None and filters.name is None:
        after = [*where, enterprises.c.id > cursor]
        parts = [[*after, enterprises.c.county == county] for county in _counties(filters)]
        return _cut(_merged(connection, enterprises, parts, limit), limit)
    where += _places(table, filters)
    query = select(table).where(*where, table.c.id > cursor).order_by(table.c.id).limit(limit + 1)
    return _cut(connection.execute(query).all(), limit)


def _cut(rows: Sequence[Row[Any]], limit: int) -> tuple[Sequence[Row[Any]], str | None]:
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def _in_key_ranges(filters: Filters) -> bool:
    """Whether the order of the primary key serves; else an index holds the few rows that come into
    question."""
    owned = filters.enterprise is not None or filters.only is not None
    return not owned and filters.id is None and filters.state not in ("suspended", "retired")


def _from_key_ranges(
    connection: Connection, filters: Filters, where: list[ColumnElement[bool]], cursor: str, limit: int
) -> tuple[Sequence[Row[Any]], str | None]:
    bounded, placed = bool(where), _is_placed(filters)
    where = where + _places(units, filters)
    found: list[Row[Any]] = []
    left, stop = LOOK_AT, None
    for low, high in _key_ranges(filters):
        if high <= cursor:
            continue
        begin, end = units.c.id > cursor if cursor >= low else units.c.id >= low, units.c.id < high
        if bounded:
            looked, last = _reach(connection, [begin, end], left)
            left -= looked
            if not left:
                # In the place of the other end, not beside it: SQLite reads up to one of the two.
                stop, end = last, units.c.id <= last
        query = select(units).where(begin, end, *where).order_by(units.c.id).limit(limit + 1 - len(found))
        found += connection.execute(query)
        if stop is not None or len(found) > limit:
            break
    if placed:
        others = _irregular(connection, filters, [*where, units.c.id > cursor], stop, limit)
        if others:
            mixed = {row.id: row for row in (*found, *others)}
            found = [mixed[id_] for id_ in sorted(mixed)]
    rows, after = _cut(found, limit)
    return rows, after if after is not None else stop


def _reach(connection: Connection, within: Sequence[ColumnElement[bool]], most: int) -> tuple[int, str]:
    """How many units, at most `most`, lie in a key range, and the last of them."""
    ids = select(units.c.id).where(*within).order_by(units.c.id).limit(most).subquery()
    number, last = connection.execute(select(func.count(), func.max(ids.c.id))).one()
    return number, last or ""


def _irregular(
    connection: Connection,
    filters: Filters,
    where: Sequence[ColumnElement[bool]],
    stop: str | None,
    limit: int,
) -> Sequence[Row[Any]]:
    """The first irregular units of the places and classes asked for: each cell is a key range of their
    index."""
    up_to = [] if stop is None else [units.c.id <= stop]
    present = select(units.c.id).where(units.c.irregular.is_not(None)).limit(1)
    if connection.scalar(present) is None:
        return []
    common = [units.c.irregular.is_not(None), *where, *up_to]
    classes = REGISTRABLE if filters.class_ is None else [filters.class_]
    parts = [
        [*common, units.c.county == county, units.c["class"] == class_]
        for county in _counties(filters)
        for class_ in classes
    ]
    return _merged(connection, units, parts, limit)


def _merged(
    connection: Connection, table: Table, parts: Sequence[Sequence[ColumnElement[bool]]], limit: int
) -> Sequence[Row[Any]]:
    """The first rows of all parts together. A part is a key range of an index in the order of ids, so that no
    more than the parts' beginnings is read."""
    if not parts:
        return []
    begun = [select(table.c.id).where(*part).order_by(table.c.id).limit(limit + 1) for part in parts]
    ids = union_all(*(select(part.subquery().c.id) for part in begun))
    query = select(table).where(table.c.id.in_(ids)).order_by(table.c.id).limit(limit + 1)
    return connection.execute(query).all()


def _is_placed(filters: Filters) -> bool:
    return filters.county is not None or filters.city is not None or filters.class_ is not None


def _key_ranges(filters: Filters) -> list[KeyRange]:
    """Key ranges of the regular units that match the filters, in order."""
    if not _is_placed(filters):
        return [("", _AFTER_ALL)]
    if filters.class_ is not None:
        prefixes = [id_prefix(county, filters.class_) for county in sorted(_counties(filters))]
        return [(prefix, prefix + _AFTER_ALL) for prefix in prefixes]
    if filters.county is not None:
        return [(f"{county}-", f"{county}-{_AFTER_ALL}") for county in _counties(filters)]
    assert filters.city is not None
    return [(filters.city[:4], filters.city[:4] + _AFTER_ALL)]


def _conditions(table: Table, filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.only is not None and table in (enterprises, units, contracts):
        found.append((table.c.id if table is enterprises else table.c.enterprise) == filters.only)
    if filters.id is not None:
        found.append(table.c.id == filters.id)
    if filters.enterprise is not None:
        found.append(table.c.enterprise == filters.enterprise)
    if filters.kind is not None:
        found.append(table.c.kind == filters.kind)
    if filters.industry is not None:
        found.append(table.c.industry == filters.industry)
    if filters.state is not None:
        found.extend(_in_state(filters.state))
    if filters.name:
        found.extend(_begins(table.c.name, filters.name))
    return found


def _begins(column: Column[Any], prefix: str) -> list[ColumnElement[bool]]:
    """Prefix filter as a key range, which an index serves; U+10FFFF sorts after every character that a name
    may hold."""
    return [column >= prefix, column < prefix + "\U0010ffff"]


def _places(table: Table, filters: Filters) -> list[ColumnElement[bool]]:
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
    if state == "suspended":
        return [units.c.suspended_ms.is_not(None)]
    seen = units.c.on_cloud_ms
    return [
        units.c.retired_ms.is_(None),
        units.c.suspended_ms.is_(None),
        seen.is_not(None) if state == "on_cloud" else seen.is_(None),
    ]


def _counties(filters: Filters) -> list[str]:
    return [
        code
        for code, county in COUNTIES.items()
        if filters.county in (None, code) and filters.city in (None, county.city)
    ]


def _active(connection: Connection, table: Table) -> Collection[int]:
    return active_hours(connection) if table is units else ()


def shown(table: Table, row: RowMapping, active: Collection[int]) -> dict[str, Any]:
    """A row in the form of the API; units with their last reading in one of the hours `active` are active."""
    if table is units:
        heard, state = row["last_hour"], state_of(row)
        return {
            "id": row["id"],
            "identifier": identifier(row["county"], row["enterprise"], row["id"]),
            "class": row["class"],
            "enterprise": row["enterprise"],
            "name": row["name"],
            "county": row["county"],
            "city": city_of(row["county"]),
            "industry": row["industry"],
            "state": state,
            "registered_ms": row["registered_ms"],
            "on_cloud_ms": row["on_cloud_ms"],
            "suspended_ms": row["suspended_ms"],
            "retired_ms": row["retired_ms"],
            "active": heard in active and state in ("registered", "on_cloud"),
            "last_heard_ms": None if heard is None else _last_heard_ms(row, heard),
        }
    if table is enterprises:
        return dict(row) | {"city": city_of(row["county"])}
    return dict(row)


def _last_heard_ms(unit: RowMapping, hour: int) -> int:
    """The earliest time that can be meant: of a reading only the hour is kept."""
    known = [hour * HOUR_MS, unit["on_cloud_ms"] or 0]
    if unit["registered_ms"] // HOUR_MS == hour:  # what is older than its registration is history
        known.append(unit["registered_ms"])
    return max(known)


def state_of(unit: RowMapping) -> str:
    if unit["retired_ms"] is not None:
        return "retired"
    if unit["suspended_ms"] is not None:
        return "suspended"
    return "registered" if unit["on_cloud_ms"] is None else "on_cloud"


def owner_of(table: Table, row: Mapping[str, Any]) -> str | None:
    """The enterprise that a row belongs to; None for what belongs to all."""
    if table is enterprises:
        return str(row["id"])
    return str(row["enterprise"]) if table in (units, contracts) else None
