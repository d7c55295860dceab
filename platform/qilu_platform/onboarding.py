"""What the gateway asks and tells: which units may speak, which spoke for the first time, which spoke
lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from qilu_contract.catalogue.places import city_of
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import CTE, ColumnElement, Connection, Row, Select, case, func, select, update

from qilu_platform import ledger, seals
from qilu_platform.activity import HOUR_MS, move, wall_hour
from qilu_platform.database import among, lock_suspensions, rows_table
from qilu_platform.ledger import Entry, Event, in_county
from qilu_platform.problems import Problem
from qilu_platform.schema import contracts, enterprises, units


@dataclass(frozen=True, slots=True)
class Report:
    """Readings are counted, not units: counted + already + readings of unknown units = readings given."""

    counted: int
    already: int
    unknown: list[str]
    active: int
    """Units whose last hour moved."""


def admission(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The units of `ids` that may speak; unknown, suspended and retired ones and those of a suspended
    enterprise are absent."""
    return {
        id_: {
            "class": class_,
            "enterprise": enterprise,
            "county": county,
            "city": city_of(county),
            "industry": industry,
            "on_cloud": on_cloud_ms is not None,
        }
        for id_, class_, enterprise, county, industry, on_cloud_ms in _admitted(connection, ids)
    }


def admission_columns(connection: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    """The same as columns in the order of `ids`: `class` and `owner` are places in `classes` and `owners`
    (enterprise, county, city, industry), -1 for a unit that may not speak."""
    classes: dict[str, int] = {}
    owners: dict[tuple[str, str, str], int] = {}
    found = {
        id_: (
            classes.setdefault(class_, len(classes)),
            owners.setdefault((enterprise, county, industry), len(owners)),
            on_cloud_ms is not None,
        )
        for id_, class_, enterprise, county, industry, on_cloud_ms in _admitted(connection, ids)
    }
    columns = list(zip(*(found.get(id_, (-1, -1, False)) for id_ in ids), strict=True)) or [(), (), ()]
    return {
        "classes": list(classes),
        "owners": [
            (enterprise, county, city_of(county), industry) for enterprise, county, industry in owners
        ],
        **dict(zip(("class", "owner", "on_cloud"), map(list, columns), strict=True)),
    }


def _admitted(connection: Connection, ids: Sequence[str]) -> Sequence[Any]:
    barred = select(enterprises.c.id).where(enterprises.c.suspended_ms.is_not(None))
    columns = [units.c[name] for name in ("id", "class", "enterprise", "county", "industry", "on_cloud_ms")]
    return connection.execute(
        select(*columns).where(
            among(connection, units.c.id, ids),
            units.c.retired_ms.is_(None),
            units.c.suspended_ms.is_(None),
            units.c.enterprise.not_in(barred),
        )
    ).all()


def report(connection: Connection, readings: Sequence[tuple[str, int]], *, first: bool) -> Report:
    """Enter (unit, ts_ms) of readings that are durably stored; with `first`, they put their units on cloud.

    A unit that was retired or suspended meanwhile still counts as onboarded (what is durable is counted), but
    not as current or active.
    """
    latest = dict(readings)
    earliest = latest
    if len(latest) != len(readings):
        earliest, latest = {}, {}
        for id_, ts_ms in readings:
            earliest[id_] = min(ts_ms, earliest.get(id_, ts_ms))
            latest[id_] = max(ts_ms, latest.get(id_, ts_ms))
    # (id, first reading, hour of the last one), in the order of ids: rows are locked in it.
    told = [(id_, earliest[id_] if first else None, latest[id_] // HOUR_MS) for id_ in sorted(latest)]
    entries: Counter[Entry] = Counter()
    moved: Counter[int] = Counter()
    counted = active = digests = 0
    # A unit that a run at speed left ahead of the wall's clock is of the present again when it speaks in it.
    now = wall_hour() if not first else _NEVER
    while True:
        found = 0
        for county, class_, on_cloud, suspended, retired, was_hour, heard, number, digest in _hear(
            connection, told, now
        ):
            found += number
            if first and not on_cloud:
                counted += number
                digests += int(digest)
                entries[in_county(Event.UNIT_ONBOARDED, county, class_)] += number
                if retired:
                    entries[in_county(Event.UNIT_LEFT, county, class_)] += number
                elif suspended:
                    entries[in_county(Event.UNIT_SUSPENDED, county, class_)] += number
            if (
                not retired
                and not suspended
                and (was_hour is None or heard > was_hour or was_hour > now >= heard >= now - 1)
            ):
                if was_hour is not None:
                    moved[was_hour] -= number
                moved[heard] += number
                active += number
        known: Collection[str] = latest.keys()
        if found != len(told):
            known = set(
                connection.scalars(select(units.c.id).where(among(connection, units.c.id, list(latest))))
            )
        if len(known) == found:
            break
        # One of them was registered since: hear them again. Those heard already do not count again.
    move(connection, moved, heard=True)
    ledger.append(connection, entries, {seals.FIRST_READINGS: (counted, digests)})
    unknown = latest.keys() - known
    already = len(readings) - counted - sum(id_ in unknown for id_, _ in readings)
    return Report(counted, already, sorted(unknown), active)


_Told = Sequence[tuple[str, int | None, int]]
_NEVER = 2**31 - 1
"""An hour that is none: nothing is ahead of it."""


def _found(connection: Connection, told: _Told) -> CTE:
    """The units that were told of, locked, as they were; `first_ms` and `heard` is what was told."""
    given = rows_table(connection, [units.c.id, units.c.on_cloud_ms, units.c.last_hour], told)
    return (
        select(
            units.c.id,
            units.c.county,
            units.c["class"],
            units.c.on_cloud_ms.is_not(None).label("on_cloud"),
            units.c.suspended_ms.is_not(None).label("suspended"),
            units.c.retired_ms.is_not(None).label("retired"),
            units.c.last_hour.label("was_hour"),
            given.c.on_cloud_ms.label("first_ms"),
            given.c.last_hour.label("heard"),
            case(
                (
                    units.c.on_cloud_ms.is_(None) & given.c.on_cloud_ms.is_not(None),
                    seals.first_reading(connection, units.c.id, given.c.on_cloud_ms),
                )
            ).label("digest"),
        )
        .join_from(given, units, units.c.id == given.c.id)
        .order_by(units.c.id)
        .with_for_update(key_share=True, of=units)
        .cte("found")
    )


def _alike(found: CTE) -> Select[Any]:
    """(county, class, on cloud, suspended, retired, last hour, told hour, how many, sum of the digests of
    first readings): what counting needs to know, in one row for all that are alike instead of one each."""
    columns = [column for column in found.c if column.name not in ("id", "first_ms", "digest")]
    sums = (func.count().label("number"), func.coalesce(func.sum(found.c.digest), 0).label("digest"))
    return select(*columns, *sums).group_by(*columns)


def _hear(connection: Connection, told: _Told, now: int) -> Sequence[Any]:
    """Set on_cloud_ms and last_hour of the units that were told of, where that is news; what they were
    before, as `_alike` says. An hour after `now` gives way to `now` and the one before it.

    On PostgreSQL this is one statement, so that it counts the units that it changes and no others.
    """
    if not told:
        return []
    found = _found(connection, told)
    if connection.dialect.name == "sqlite":
        rows = connection.execute(_alike(found)).all()
        # In the order of the tree, one prepared statement: faster than a join with what was given.
        connection.exec_driver_sql(
            """UPDATE units SET on_cloud_ms = coalesce(on_cloud_ms, ?1), last_hour = CASE
            WHEN retired_ms IS NULL AND (last_hour IS NULL OR last_hour < ?2 OR last_hour > ?4)
            THEN ?2 ELSE last_hour END
            WHERE id = ?3 AND ((on_cloud_ms IS NULL AND ?1 IS NOT NULL)
            OR (retired_ms IS NULL AND (last_hour IS NULL OR last_hour < ?2 OR last_hour > ?4)))""",
            [
                (on_cloud_ms, hour, id_, now if now - 1 <= hour <= now else _NEVER)
                for id_, on_cloud_ms, hour in told
            ],
        )
        return rows
    # All conditions are on what was found: a unit whose lock had to be waited for is there as it is by now,
    # and in `units` as it was when the statement began.
    back = (found.c.was_hour > now) & found.c.heard.between(now - 1, now)
    later = ~found.c.retired & (found.c.was_hour.is_(None) | (found.c.was_hour < found.c.heard) | back)
    onboarded = ~found.c.on_cloud & found.c.first_ms.is_not(None)
    changed = (
        update(units)
        .where(units.c.id == found.c.id, onboarded | later)
        .values(
            on_cloud_ms=case((onboarded, found.c.first_ms), else_=units.c.on_cloud_ms),
            last_hour=case((later, found.c.heard), else_=units.c.last_hour),
        )
        .returning(units.c.id)
        .cte("changed")
    )
    return connection.execute(_alike(found).add_cte(changed)).all()


def fall_silent(connection: Connection, ids: Sequence[str]) -> int:
    """Units whose edge node, or the node on their behalf, said that they are gone: stale until they are heard
    of again. Returns how many were active, or could have been."""
    found = _found(connection, [(id_, None, 0) for id_ in sorted(set(ids))])
    silent = (
        update(units)
        .where(units.c.id == found.c.id, found.c.was_hour.is_not(None), ~found.c.retired)
        .values(last_hour=None)
    )
    if connection.dialect.name == "sqlite":
        rows = connection.execute(_alike(found)).all()
        connection.execute(silent)
    else:
        changed = silent.returning(units.c.id).cte("changed")
        rows = connection.execute(_alike(found).add_cte(changed)).all()
    moved: Counter[int] = Counter()
    for row in rows:
        if row.was_hour is not None and not row.retired and not row.suspended:
            moved[row.was_hour] -= row.number
    move(connection, moved)
    return -moved.total()


def retire_unit(connection: Connection, id_: str) -> bool:
    """Take a unit out of the current counts, for good; whether that changed anything. Raises Problem 404."""
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
    anything. One that is suspended with its enterprise stays so when that is resumed. Raises Problem: 404 if
    there is none, 409 if it is retired."""
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
    """Undo a suspension; whether there was one. Raises Problem as `suspend_unit` does."""
    lock_suspensions(connection, shared=True)
    unit = _locked(connection, select(units).where(units.c.id == id_), f"unit {id_}")
    _refuse_retired(unit)
    if unit.suspended_ms is None:
        return False
    if _owner_suspended_ms(connection, unit) is not None:
        raise Problem(409, f"enterprise {unit.enterprise} of unit {id_} is suspended: resume that first.")
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
        raise Problem(409, f"unit {unit.id} is retired, for good: register what takes its place anew.")


def _of_unit(unit: Row[Any], event: Event) -> Entry:
    return in_county(event, unit.county, unit._mapping["class"])


def suspend_enterprise(connection: Connection, id_: str) -> bool:
    """Bar an enterprise and all of its units, and take them out of the current counts until it is resumed;
    whether that changed anything. Raises Problem 404."""
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
    Problem 404."""
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
    """Set `suspended_ms` of many units and move the gauge; what the ledger has to be told of them."""
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


@dataclass(frozen=True, slots=True)
class Endings:
    """How many contracts ended now and before, and those that are not registered."""

    ended: int
    already: int
    unknown: list[str]


def end_contracts(connection: Connection, ids: Sequence[str]) -> Endings:
    """End contracts; with its last one an enterprise is no longer currently on cloud."""
    wanted = sorted(set(ids))
    of_owner = select(contracts.c.id, contracts.c.enterprise).where(among(connection, contracts.c.id, wanted))
    known = {row.id: row.enterprise for row in connection.execute(of_owner)}
    given = among(connection, contracts.c.id, sorted(known))
    # Owners first, as whoever begins a contract does: nobody waits for the other.
    owned = among(connection, enterprises.c.id, sorted(set(known.values())))
    query = select(enterprises).where(owned).order_by(enterprises.c.id).with_for_update(key_share=True)
    owners = {row.id: row for row in connection.execute(query)}
    found = connection.execute(
        select(contracts).where(given).order_by(contracts.c.id).with_for_update(key_share=True)
    ).all()
    ending = [row for row in found if row.ended_ms is None]
    entries = Counter(Entry(Event.CONTRACT_ENDED, kind=row.kind) for row in ending)
    changes = []
    for id_, number in sorted(Counter(row.enterprise for row in ending).items()):
        left = owners[id_].contracts_current - number
        changes.append((id_, left))
        if left == 0:
            entries[in_county(Event.ENTERPRISE_LEFT, owners[id_].county)] += 1
            if owners[id_].suspended_ms is not None:  # as with units: it comes back and leaves
                entries[in_county(Event.ENTERPRISE_RESUMED, owners[id_].county)] += 1
    if changes:
        ids_ = among(connection, contracts.c.id, [row.id for row in ending])
        connection.execute(update(contracts).where(ids_).values(ended_ms=wall_ms()))
        rows = rows_table(connection, [enterprises.c.id, enterprises.c.contracts_current], changes)
        connection.execute(
            update(enterprises)
            .where(enterprises.c.id == rows.c.id)
            .values(contracts_current=rows.c.contracts_current)
        )
    ledger.append(connection, entries)
    unknown = sorted(set(wanted) - known.keys())
    return Endings(len(ending), len(found) - len(ending), unknown)


def end_contract(connection: Connection, id_: str) -> bool:
    """End one; whether that changed anything. Raises Problem 404."""
    done = end_contracts(connection, [id_])
    if done.unknown:
        raise Problem(404, f"contract {id_} does not exist.")
    return bool(done.ended)


def _locked(connection: Connection, query: Any, what: str) -> Row[Any]:
    row: Row[Any] | None = connection.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        raise Problem(404, f"{what} does not exist.")
    return row
