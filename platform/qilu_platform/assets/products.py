"""Data products: data sets of an enterprise that are registered for others, with number, version and terms.

A version never changes: who relied on its terms finds them again. A product covers the owner's units of one
data set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, RowMapping, func, select

from qilu_platform.assets.data_sets import DataSet, data_set
from qilu_platform.database.schema import enterprises, sequences
from qilu_platform.database.schema_assets import data_products as table
from qilu_platform.database.statements import insert_rows
from qilu_platform.errors import Conflict, Invalid
from qilu_platform.registry.registration import unregistered

MAX_PRODUCTS = 10_000
"""Versions of all products: each is shown in the DCAT catalogue."""


def register(connection: Connection, row: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The product as the API shows it, and whether this version is new. `row["id"]`: None for a new product.

    Raises Invalid for an unknown owner or an id that was never made, Conflict for a version with other
    content, another owner, or too many products.
    """
    data_set(row["dataset"])
    if connection.scalar(select(enterprises.c.id).where(enterprises.c.id == row["owner"])) is None:
        raise Invalid(unregistered("enterprise", row["owner"]))
    id_ = row["id"]
    if id_ is None:
        id_ = _next_id(connection)
    else:
        owner = connection.scalar(select(table.c.owner).where(table.c.id == id_).limit(1))
        if owner is None:
            raise Invalid(f"data product {id_} is not registered: leave the id out, the platform makes it")
        if owner != row["owner"]:
            raise Conflict(f"data product {id_} is of another enterprise.")
    if (connection.scalar(select(func.count()).select_from(table)) or 0) >= MAX_PRODUCTS:
        raise Conflict(f"There are {MAX_PRODUCTS} versions of data products, as many as the platform keeps.")
    insert = insert_rows(connection, table, [{**row, "id": id_, "registered_ms": wall_ms()}])
    added = connection.execute(insert.on_conflict_do_nothing().returning(table.c.id)).all()
    present = get(connection, id_, row["version"])
    assert present is not None
    if other := [name for name in row if name != "id" and present[name] != row[name]]:
        raise Conflict(
            f"version {row['version']} of {id_} has another {other[0]}: versions never change, register a "
            "new one."
        )
    return present, bool(added)


def _next_id(connection: Connection) -> str:
    insert = insert_rows(connection, sequences, [{"name": "data product", "next": 1}])
    upsert = insert.on_conflict_do_update(index_elements=["name"], set_={"next": sequences.c.next + 1})
    return f"dp-{connection.scalars(upsert.returning(sequences.c.next)).one():06d}"


def get(connection: Connection, id_: str, version: str) -> dict[str, Any] | None:
    row = connection.execute(select(table).where(table.c.id == id_, table.c.version == version)).one_or_none()
    return None if row is None else _shown(row._mapping)


def page(
    connection: Connection, owner: str | None, dataset: str | None, cursor: str | None, limit: int
) -> dict[str, Any]:
    """{"items", "next"} in the order of ids and registration; `next` is `<id>@<version>`."""
    query = select(table).order_by(table.c.id, table.c.registered_ms, table.c.version).limit(limit + 1)
    if owner is not None:
        query = query.where(table.c.owner == owner)
    if dataset is not None:
        query = query.where(table.c.dataset == dataset)
    if cursor is not None:
        id_, _, version = cursor.partition("@")
        last = get(connection, id_, version)
        if last is None:
            raise Invalid(f"cursor: there is no product {cursor[:80]!r}; give `next` of the page before.")
        newer = (table.c.id == id_) & (
            (table.c.registered_ms > last["registered_ms"])
            | ((table.c.registered_ms == last["registered_ms"]) & (table.c.version > version))
        )
        query = query.where((table.c.id > id_) | newer)
    items = [_shown(row._mapping) for row in connection.execute(query)]
    more = len(items) > limit
    return {
        "items": items[:limit],
        "next": f"{items[limit - 1]['id']}@{items[limit - 1]['version']}" if more else None,
    }


def _shown(row: RowMapping) -> dict[str, Any]:
    found: dict[str, Any] = dict(row)
    return found | {"export": f"/v1/export/readings?{export_filter(found)}&format=parquet"}


def export_filter(row: Mapping[str, Any]) -> str:
    """Query of the export that gives the product's readings; without an end, the caller adds one."""
    data: DataSet = data_set(row["dataset"])
    until = "" if row["until_ms"] is None else f"&to={row['until_ms']}"
    return f"{data.export_filter}&enterprise={row['owner']}&from={row['from_ms']}{until}"
