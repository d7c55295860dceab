"""Reports of readings: first readings, which put units on cloud, and recent activity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, Connection, Select, case, func, select, update

from qilu_platform.counting import ledger
from qilu_platform.counting.activity import HOUR_MS, move, wall_hour
from qilu_platform.counting.ledger import Entry, Event, in_county
from qilu_platform.database import seals
from qilu_platform.database.schema import units
from qilu_platform.database.statements import among, rows_table, values_table


@dataclass(frozen=True, slots=True)
class Report:
    """Readings are counted, not units: counted + already + readings of unknown units = readings given."""

    counted: int
    already: int
    unknown: list[str]
    active: int
    """Units whose last hour moved."""


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
    reports = [(id_, earliest[id_] if first else None, latest[id_] // HOUR_MS) for id_ in sorted(latest)]
    entries: Counter[Entry] = Counter()
    moved: Counter[int] = Counter()
    counted = active = digests = 0
    # A unit that a run at speed left ahead of the wall's clock is of the present again when it speaks in it.
    now = wall_hour() if not first else _NEVER
    while True:
        found = 0
        for county, class_, on_cloud, suspended, retired, was_hour, heard, number, digest in _hear(
            connection, reports, now
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
        if found != len(reports):
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


_Reports = Sequence[tuple[str, int | None, int]]
_NEVER = 2**31 - 1
"""Placeholder for no hour; nothing is ahead of it."""


def _found(connection: Connection, reports: _Reports) -> CTE:
    """The reported units, locked, in their previous state; `first_ms` and `heard` are the reports."""
    reported = rows_table(connection, [units.c.id, units.c.on_cloud_ms, units.c.last_hour], reports)
    return (
        select(
            units.c.id,
            units.c.county,
            units.c["class"],
            units.c.on_cloud_ms.is_not(None).label("on_cloud"),
            units.c.suspended_ms.is_not(None).label("suspended"),
            units.c.retired_ms.is_not(None).label("retired"),
            units.c.last_hour.label("was_hour"),
            reported.c.on_cloud_ms.label("first_ms"),
            reported.c.last_hour.label("heard"),
            case(
                (
                    units.c.on_cloud_ms.is_(None) & reported.c.on_cloud_ms.is_not(None),
                    seals.first_reading(connection, units.c.id, reported.c.on_cloud_ms),
                )
            ).label("digest"),
        )
        .join_from(reported, units, units.c.id == reported.c.id)
        .order_by(units.c.id)
        .with_for_update(key_share=True, of=units)
        .cte("found")
    )


def _alike(found: CTE) -> Select[Any]:
    """(county, class, on cloud, suspended, retired, last hour, reported hour, number, sum of the digests of
    first readings): the input of counting, one row for all equal units instead of one each."""
    columns = [column for column in found.c if column.name not in ("id", "first_ms", "digest")]
    sums = (func.count().label("number"), func.coalesce(func.sum(found.c.digest), 0).label("digest"))
    return select(*columns, *sums).group_by(*columns)


def _hear(connection: Connection, reports: _Reports, now: int) -> Sequence[Any]:
    """Set on_cloud_ms and last_hour of the reported units where they change; returns the previous state in
    the form of `_alike`. An hour after `now` gives way to `now` and the one before it.

    On PostgreSQL this is one statement, so that it counts the units that it changes and no others.
    """
    if not reports:
        return []
    if connection.dialect.name == "sqlite":
        rows = (
            _of_one_hour(connection, reports) or connection.execute(_alike(_found(connection, reports))).all()
        )
        # In the order of the tree, one prepared statement: faster than a join with what was given.
        connection.exec_driver_sql(
            """UPDATE units SET on_cloud_ms = coalesce(on_cloud_ms, :on_cloud), last_hour = CASE
            WHEN retired_ms IS NULL AND (last_hour IS NULL OR last_hour < :hour OR last_hour > :now)
            THEN :hour ELSE last_hour END
            WHERE id = :id AND ((on_cloud_ms IS NULL AND :on_cloud IS NOT NULL)
            OR (retired_ms IS NULL AND (last_hour IS NULL OR last_hour < :hour OR last_hour > :now)))""",
            [
                {
                    "id": id_,
                    "on_cloud": on_cloud_ms,
                    "hour": hour,
                    "now": now if now - 1 <= hour <= now else _NEVER,
                }
                for id_, on_cloud_ms, hour in reports
            ],
        )
        return rows
    found = _found(connection, reports)
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


def _of_one_hour(connection: Connection, reports: _Reports) -> list[tuple[Any, ...]]:
    """The previous state of the reported units in the form of `_alike`, at a third of its cost; empty where
    only `_alike` can tell: readings of several hours, or first readings of which some were known."""
    ids, first_ms, hours = zip(*reports, strict=True)
    if len(set(hours)) > 1:
        return []
    state = (
        units.c.county,
        units.c["class"],
        units.c.on_cloud_ms.is_not(None),
        units.c.suspended_ms.is_not(None),
        units.c.retired_ms.is_not(None),
        units.c.last_hour,
    )
    given = values_table(ids)
    query = select(*state, func.count()).join_from(given, units, units.c.id == given.c.value)
    rows = [tuple(row) for row in connection.execute(query.group_by(*state))]
    new, digest = sum(row[6] for row in rows if not row[2]), 0
    if new and first_ms[0] is not None:
        if new < len(reports):
            return []
        digest = seals.sum_up_first_readings(connection, ids, first_ms)
    # The sum is of all rows together, so any of them may hold it.
    return [(*row[:6], hours[0], row[6], 0 if place else digest) for place, row in enumerate(rows)]


def fall_silent(connection: Connection, ids: Sequence[str]) -> int:
    """Mark units as stale whose death was reported, by themselves or with their edge node, until their next
    reading. Returns how many were active, or could have been."""
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
