"""What the gateway asks and tells: which units may speak, which spoke for the first time, which spoke
lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qilu_contract.clock import wall_ms
from qilu_contract.places import city_of
from sqlalchemy import Connection, Row, func, select, update

from qilu_platform import ledger
from qilu_platform.database import among, insert_rows, rows_table
from qilu_platform.ledger import Entry, Event, in_county
from qilu_platform.problems import Problem
from qilu_platform.schema import activity, contracts, enterprises, units

HOUR_MS = 3_600_000
ACTIVE_HOURS = 24
"""A unit whose last reading is no older is active."""


@dataclass(frozen=True, slots=True)
class Report:
    """Readings are counted, not units: counted + already + readings of unknown units = readings given."""

    counted: int
    already: int
    unknown: list[str]
    active: int
    """Units whose last hour moved."""


def admission(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The units of `ids` that may speak; unknown and retired ones are absent."""
    columns = [units.c[name] for name in ("id", "class", "enterprise", "county", "industry", "on_cloud_ms")]
    rows = connection.execute(
        select(*columns).where(among(connection, units.c.id, ids), units.c.retired_ms.is_(None))
    )
    return {
        id_: {
            "class": class_,
            "enterprise": enterprise,
            "county": county,
            "city": city_of(county),
            "industry": industry,
            "on_cloud": on_cloud_ms is not None,
        }
        for id_, class_, enterprise, county, industry, on_cloud_ms in rows
    }


def report(connection: Connection, readings: Sequence[tuple[str, int]], *, first: bool) -> Report:
    """Enter (unit, ts_ms) of readings that are durably stored; with `first`, they put their units on cloud.

    A unit that was retired meanwhile still counts as onboarded (what is durable is counted), but not as
    current or active.
    """
    earliest: dict[str, int] = {}
    latest: dict[str, int] = {}
    for id_, ts_ms in readings:
        earliest[id_] = min(ts_ms, earliest.get(id_, ts_ms))
        latest[id_] = max(ts_ms, latest.get(id_, ts_ms))
    found = connection.execute(
        select(units)
        .where(among(connection, units.c.id, list(latest)))
        .order_by(units.c.id)
        .with_for_update(key_share=True)
    ).all()
    entries: Counter[Entry] = Counter()
    moved: Counter[int] = Counter()
    changes: list[tuple[str, int | None, int | None]] = []
    counted = active = 0
    for unit in found:
        unit_class = unit._mapping["class"]
        on_cloud_ms, hour = unit.on_cloud_ms, unit.last_hour
        if first and on_cloud_ms is None:
            on_cloud_ms = earliest[unit.id]
            counted += 1
            entries[in_county(Event.UNIT_ONBOARDED, unit.county, unit_class)] += 1
            if unit.retired_ms is not None:
                entries[in_county(Event.UNIT_LEFT, unit.county, unit_class)] += 1
        heard = latest[unit.id] // HOUR_MS
        if unit.retired_ms is None and (hour is None or heard > hour):
            if hour is not None:
                moved[hour] -= 1
            moved[heard] += 1
            active += 1
            hour = heard
        if on_cloud_ms != unit.on_cloud_ms or hour != unit.last_hour:
            changes.append((unit.id, on_cloud_ms, hour))
    if changes:
        given = rows_table(connection, [units.c.id, units.c.on_cloud_ms, units.c.last_hour], changes)
        connection.execute(
            update(units)
            .where(units.c.id == given.c.id)
            .values(on_cloud_ms=given.c.on_cloud_ms, last_hour=given.c.last_hour)
        )
    _move(connection, moved)
    ledger.append(connection, entries)
    known = {unit.id for unit in found}
    unknown = sorted(set(latest) - known)
    already = sum(id_ in known for id_, _ in readings) - counted
    return Report(counted, already, unknown, active)


def _move(connection: Connection, moved: Counter[int]) -> None:
    steps = [{"hour": hour, "units": step} for hour, step in sorted(moved.items()) if step]
    if steps:
        insert = insert_rows(connection, activity, steps)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["hour"], set_={"units": activity.c.units + insert.excluded["units"]}
            )
        )


def active_units(connection: Connection) -> int:
    """Units with a reading in the last 24 hours, by the later of the wall's clock and the latest report."""
    latest = connection.scalar(select(func.max(activity.c.hour)))
    now = max(wall_ms() // HOUR_MS, latest if latest is not None else 0)
    total = connection.scalar(select(func.sum(activity.c.units)).where(activity.c.hour > now - ACTIVE_HOURS))
    return int(total or 0)


def retire_unit(connection: Connection, id_: str) -> None:
    """Take a unit out of the current counts, for good; again changes nothing. Raises Problem 404."""
    unit = _locked(connection, select(units).where(units.c.id == id_), f"unit {id_}")
    if unit.retired_ms is not None:
        return
    connection.execute(update(units).where(units.c.id == id_).values(retired_ms=wall_ms()))
    if unit.last_hour is not None:
        _move(connection, Counter({unit.last_hour: -1}))
    if unit.on_cloud_ms is not None:
        entry = in_county(Event.UNIT_LEFT, unit.county, unit._mapping["class"])
        ledger.append(connection, Counter([entry]))


def end_contract(connection: Connection, id_: str) -> None:
    """End a contract; with its last one an enterprise is no longer currently on cloud. Raises Problem 404."""
    enterprise = connection.scalar(select(contracts.c.enterprise).where(contracts.c.id == id_))
    owner = _locked(connection, select(enterprises).where(enterprises.c.id == enterprise), f"contract {id_}")
    contract = _locked(connection, select(contracts).where(contracts.c.id == id_), f"contract {id_}")
    if contract.ended_ms is not None:
        return
    connection.execute(update(contracts).where(contracts.c.id == id_).values(ended_ms=wall_ms()))
    left = owner.contracts_current - 1
    connection.execute(update(enterprises).where(enterprises.c.id == owner.id).values(contracts_current=left))
    entries = Counter([Entry(Event.CONTRACT_ENDED, kind=contract.kind)])
    if left == 0:
        entries[in_county(Event.ENTERPRISE_LEFT, owner.county)] += 1
    ledger.append(connection, entries)


def _locked(connection: Connection, query: Any, what: str) -> Row[Any]:
    row: Row[Any] | None = connection.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise Problem(404, f"{what} does not exist.")
    return row
