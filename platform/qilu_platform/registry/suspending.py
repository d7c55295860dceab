"""Suspends and retires units and enterprises, which removes them from the current counts until they are
resumed, or permanently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import ColumnElement, Connection, Row, func, select, update

from qilu_platform.counting import ledger
from qilu_platform.counting.activity import move
from qilu_platform.counting.ledger import Entry, Event, in_county
from qilu_platform.database.locks import lock_suspensions
from qilu_platform.database.schema import enterprises, units
from qilu_platform.database.statements import among
from qilu_platform.errors import Conflict, NotFound


def retire_unit(connection: Connection, id_: str) -> bool:
    """Take a unit out of the current counts, for good; whether that changed anything. Raises NotFound."""
    unit = _locked(connection, select(units).where(units.c.id == id_), f"unit {id_}")
    if unit.retired_ms is not None:
        return False
    connection.execute(update(units).where(units.c.id == id_).values(retired_ms=wall_ms(), suspended_ms=None))
    entries = Counter([_of_unit(unit, Event.UNIT_LEFT)])
    if unit.suspended_ms is not None:
        # It was out of the current counts and the gauge already: it comes back and leaves for good.
        entries[_of_unit(unit, Event.UNIT_RESUMED)] += 1
    elif unit.last_hour is not None:
        move(connection, Counter({unit.last_hour: -1}))
    if unit.on_cloud_ms is not None:
        ledger.append(connection, entries)
    return True


def suspend_unit(connection: Connection, id_: str) -> bool:
    """Take a unit out of the current counts and of admission until it is resumed; whether that changed
    anything. One that is suspended with its enterprise stays so when that is resumed. Raises NotFound if
    there is none, Conflict if it is retired."""
    lock_suspensions(connection, shared=True)
    unit = _locked(connection, select(units).where(units.c.id == id_), f"unit {id_}")
    _refuse_retired(unit)
    owner_ms = _owner_suspended_ms(connection, unit)
    if unit.suspended_ms is not None:
        if owner_ms is None or unit.suspended_ms != owner_ms:
            return False
        by_itself = update(units).where(units.c.id == id_).values(suspended_ms=max(wall_ms(), owner_ms + 1))
        connection.execute(by_itself)
        return True
    connection.execute(update(units).where(units.c.id == id_).values(suspended_ms=wall_ms()))
    if unit.last_hour is not None:
        move(connection, Counter({unit.last_hour: -1}))
    if unit.on_cloud_ms is not None:
        ledger.append(connection, Counter([_of_unit(unit, Event.UNIT_SUSPENDED)]))
    return True


def resume_unit(connection: Connection, id_: str) -> bool:
    """Undo a suspension; whether there was one. Raises as `suspend_unit` does."""
    lock_suspensions(connection, shared=True)
    unit = _locked(connection, select(units).where(units.c.id == id_), f"unit {id_}")
    _refuse_retired(unit)
    if unit.suspended_ms is None:
        return False
    if _owner_suspended_ms(connection, unit) is not None:
        raise Conflict(f"enterprise {unit.enterprise} of unit {id_} is suspended: resume that first.")
    connection.execute(update(units).where(units.c.id == id_).values(suspended_ms=None))
    if unit.last_hour is not None:
        move(connection, Counter({unit.last_hour: 1}))
    if unit.on_cloud_ms is not None:
        ledger.append(connection, Counter([_of_unit(unit, Event.UNIT_RESUMED)]))
    return True


def _owner_suspended_ms(connection: Connection, unit: Row[Any]) -> int | None:
    query = select(enterprises.c.suspended_ms).where(enterprises.c.id == unit.enterprise)
    return connection.scalar(query)


def _refuse_retired(unit: Row[Any]) -> None:
    if unit.retired_ms is not None:
        raise Conflict(f"unit {unit.id} is retired permanently: register a new unit in its place.")


def _of_unit(unit: Row[Any], event: Event) -> Entry:
    return in_county(event, unit.county, unit._mapping["class"])


def suspend_enterprise(connection: Connection, id_: str) -> bool:
    """Bar an enterprise and all of its units, and take them out of the current counts until it is resumed;
    whether that changed anything. Raises NotFound."""
    lock_suspensions(connection, shared=False)
    owner = _locked(connection, select(enterprises).where(enterprises.c.id == id_), f"enterprise {id_}")
    if owner.suspended_ms is not None:
        return False
    # Its own time, so that resuming it leaves those alone that were suspended by themselves.
    mine = units.c.enterprise == id_
    latest = connection.scalar(select(func.max(units.c.suspended_ms)).where(mine)) or 0
    at_ms = max(wall_ms(), latest + 1)
    connection.execute(update(enterprises).where(enterprises.c.id == id_).values(suspended_ms=at_ms))
    active_ones = (mine, units.c.retired_ms.is_(None), units.c.suspended_ms.is_(None))
    entries = _suspend_all(connection, active_ones, at_ms, Event.UNIT_SUSPENDED, -1)
    if owner.contracts_current:
        entries[in_county(Event.ENTERPRISE_SUSPENDED, owner.county)] += 1
    ledger.append(connection, entries)
    return True


def resume_enterprise(connection: Connection, id_: str) -> bool:
    """Undo a suspension; units that were suspended by themselves stay so. Whether there was one. Raises
    NotFound."""
    lock_suspensions(connection, shared=False)
    owner = _locked(connection, select(enterprises).where(enterprises.c.id == id_), f"enterprise {id_}")
    if owner.suspended_ms is None:
        return False
    connection.execute(update(enterprises).where(enterprises.c.id == id_).values(suspended_ms=None))
    with_it = (units.c.enterprise == id_, units.c.suspended_ms == owner.suspended_ms)
    entries = _suspend_all(connection, with_it, None, Event.UNIT_RESUMED, 1)
    if owner.contracts_current:
        entries[in_county(Event.ENTERPRISE_RESUMED, owner.county)] += 1
    ledger.append(connection, entries)
    return True


def _suspend_all(
    connection: Connection,
    which: Sequence[ColumnElement[bool]],
    suspended_ms: int | None,
    event: Event,
    step: int,
) -> Counter[Entry]:
    """Set `suspended_ms` of many units and move the gauge; returns the entries for the ledger."""
    columns = [units.c[name] for name in ("id", "county", "class", "on_cloud_ms", "last_hour")]
    locked = select(*columns).where(*which).order_by(units.c.id).with_for_update(key_share=True)
    rows = connection.execute(locked).all()
    these = among(connection, units.c.id, [row.id for row in rows])
    connection.execute(update(units).where(these).values(suspended_ms=suspended_ms))
    moved: Counter[int] = Counter()
    entries: Counter[Entry] = Counter()
    for _, county, class_, on_cloud_ms, hour in rows:
        if hour is not None:
            moved[hour] += step
        if on_cloud_ms is not None:
            entries[in_county(event, county, class_)] += 1
    move(connection, moved)
    return entries


def _locked(connection: Connection, query: Any, what: str) -> Row[Any]:
    row: Row[Any] | None = connection.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise NotFound(f"{what} does not exist.")
    return row
