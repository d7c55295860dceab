"""Device types: titles, units and ranges of the signals of generic units, as operators describe them.

The gateway does not know them: they are shown, and nothing is refused or alarmed because of them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from qilu_contract.catalogue.generic import GENERIC
from sqlalchemy import Connection, delete, func, select

from qilu_platform.database.schema import units
from qilu_platform.database.schema_gateways import device_types as table
from qilu_platform.database.schema_gateways import unit_types
from qilu_platform.database.statements import insert_rows
from qilu_platform.errors import Conflict, NotFound
from qilu_platform.registry import learned_signals

MAX_TYPES = 500
"""A list that a person can look through, and one answer of the API."""


def listed(connection: Connection) -> list[dict[str, Any]]:
    """All types, in the order of their ids."""
    return [_type(row._mapping) for row in connection.execute(select(table).order_by(table.c.id))]


def _type(row: Any) -> dict[str, Any]:
    return {**row, "signals": msgspec.json.decode(row["signals"])}


def put(connection: Connection, type_: dict[str, Any]) -> None:
    """Make a type, or replace the one with this id. Raises Conflict where there are MAX_TYPES others."""
    count = connection.scalar(select(func.count()).select_from(table).where(table.c.id != type_["id"])) or 0
    if count >= MAX_TYPES:
        raise Conflict(f"There are {MAX_TYPES} device types, the most that this platform keeps: delete one.")
    row = {**type_, "signals": msgspec.json.encode(type_["signals"]).decode()}
    values = {name: value for name, value in row.items() if name != "id"}
    connection.execute(
        insert_rows(connection, table, [row]).on_conflict_do_update(index_elements=["id"], set_=values)
    )


def remove(connection: Connection, id_: str) -> None:
    """Delete a type that no unit has. Raises NotFound, or Conflict while units have it."""
    # Locked before the units are counted: `assign` waits for the end of this transaction, or this for its.
    if connection.scalar(select(table.c.id).where(table.c.id == id_).with_for_update()) is None:
        raise NotFound(f"device type {id_} does not exist.")
    using = connection.scalar(select(func.count()).select_from(unit_types).where(unit_types.c.type == id_))
    if using:
        raise Conflict(
            f"{using} {'unit has' if using == 1 else 'units have'} device type {id_}: give them another one, "
            "or none, before you delete it."
        )
    connection.execute(delete(table).where(table.c.id == id_))


def assign(connection: Connection, unit: str, type_: str | None) -> None:
    """Give a generic unit a type, or none. Raises NotFound, or Conflict for a unit of another class."""
    class_ = connection.scalar(select(units.c["class"]).where(units.c.id == unit))
    if class_ != GENERIC:
        raise Conflict(f"unit {unit} is a {class_}: only generic units have a device type.")
    if type_ is None:
        connection.execute(delete(unit_types).where(unit_types.c.unit == unit))
        return
    if (
        connection.scalar(select(table.c.id).where(table.c.id == type_).with_for_update(key_share=True))
        is None
    ):
        raise NotFound(f"device type {type_} does not exist.")
    insert = insert_rows(connection, unit_types, [{"unit": unit, "type": type_}])
    connection.execute(insert.on_conflict_do_update(index_elements=["unit"], set_={"type": type_}))


def described(connection: Connection, unit: str) -> dict[str, Any]:
    """{"type", "items"} of a generic unit: its type or None; the type's signals in their order, then those
    that the unit has sent besides."""
    query = select(table).join(unit_types, unit_types.c.type == table.c.id).where(unit_types.c.unit == unit)
    row = connection.execute(query).one_or_none()
    type_ = None if row is None else _type(row._mapping)
    learned = {each["name"]: each for each in learned_signals.signals_of(connection, unit)}
    items = [
        {**each, "since_ms": learned.pop(each["name"], {}).get("since_ms")}
        for each in (type_["signals"] if type_ else ())
    ]
    items += [
        {"name": each["name"], "unit": each["measured_in"], "title": None, "title_zh": None, "low": None,
         "high": None, "since_ms": each["since_ms"]}
        for each in learned.values()
    ]  # fmt: skip
    return {"type": type_ and {name: type_[name] for name in ("id", "title", "title_zh")}, "items": items}
