"""Alarms for people: breaches of limits, which gateways write to the store, with the actions on them, which
the registry keeps.

An acknowledgement is of one alarm, named by the time at which it began; a shelf is of a unit's signal, until
a time. Neither changes what gateways write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.storage import MEASUREMENTS, Point
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, delete, select

from qilu_platform.database.schema import alarm_notes
from qilu_platform.database.statements import insert_rows
from qilu_platform.registry import audit_log
from qilu_platform.registry.keys import Caller

State = Literal["open", "acknowledged", "shelved", "cleared"]
_TAGS = MEASUREMENTS["alarm"].tags
MAX_NOTES = 100_000
"""Rows of notes; beyond, those whose shelf has ended and that were acknowledged longest ago are dropped."""


def tags_of(point: Point) -> dict[str, str]:
    """The tags of a point of the measurement `alarm`, by name."""
    return dict(zip(_TAGS, point.tags, strict=True))


def shown(point: Point, note: Mapping[str, Any] | None, now_ms: int) -> dict[str, Any]:
    """An alarm as the API shows it."""
    tags, fields = tags_of(point), point.fields
    is_open = bool(fields.get("open"))
    duration_s = float(fields.get("duration_s", 0.0))
    note = note or {}
    acknowledged = note.get("acknowledged_since_ms") == point.ts_ms
    shelved_ms = note.get("shelved_until_ms") or 0
    state: State = "open"
    if not is_open:
        state = "cleared"
    elif shelved_ms > now_ms:
        state = "shelved"
    elif acknowledged:
        state = "acknowledged"
    return {
        "unit": tags["unit"],
        "class": tags["class"],
        "signal": tags["signal"],
        "enterprise": tags["enterprise"],
        "city": tags["city"],
        "county": tags["county"],
        "industry": tags["industry"],
        "state": state,
        "since_ms": point.ts_ms,
        "ended_ms": None if is_open else point.ts_ms + round(duration_s * 1000),
        "value": fields.get("value"),
        "worst": fields.get("worst"),
        "limit": fields.get("limit"),
        "ratio": fields.get("ratio"),
        "acknowledged_ms": note["acknowledged_ms"] if acknowledged else None,
        "acknowledged_by": note["acknowledged_by"] if acknowledged else None,
        "shelved_until_ms": shelved_ms if shelved_ms > now_ms else None,
    }


def with_notes(connection: Connection, points: Iterable[Point]) -> list[dict[str, Any]]:
    """Points of the measurement `alarm` as the API shows them."""
    points, now_ms = list(points), wall_ms()
    at = _TAGS.index("unit")
    units = sorted({point.tags[at] for point in points})
    notes: dict[tuple[str, str], dict[str, Any]] = {}
    for start in range(0, len(units), 500):
        some = select(alarm_notes).where(alarm_notes.c.unit.in_(units[start : start + 500]))
        for row in connection.execute(some):
            notes[row.unit, row.signal] = dict(row._mapping)
    signal = _TAGS.index("signal")
    return [shown(point, notes.get((point.tags[at], point.tags[signal])), now_ms) for point in points]


def acknowledge(connection: Connection, caller: Caller, unit: str, signal: str, since_ms: int) -> None:
    """Acknowledge the alarm that began at `since_ms`."""
    done = {
        "acknowledged_since_ms": since_ms,
        "acknowledged_ms": wall_ms(),
        "acknowledged_by": caller.key,
    }
    _note(connection, unit, signal, done)
    audit_log.record(connection, caller, "acknowledged", f"units/{unit}", signal=signal, since_ms=since_ms)


def shelve(connection: Connection, caller: Caller, unit: str, signal: str, for_s: int) -> None:
    """Shelve alarms of this signal for this time; 0 ends it."""
    until_ms = wall_ms() + for_s * 1000 if for_s else None
    _note(connection, unit, signal, {"shelved_until_ms": until_ms, "shelved_by": caller.key})
    action = "shelved" if for_s else "unshelved"
    audit_log.record(connection, caller, action, f"units/{unit}", signal=signal, for_s=for_s)


def _note(connection: Connection, unit: str, signal: str, values: Mapping[str, Any]) -> None:
    insert = insert_rows(connection, alarm_notes, [{"unit": unit, "signal": signal, **values}])
    connection.execute(insert.on_conflict_do_update(index_elements=["unit", "signal"], set_=dict(values)))
    last = select(alarm_notes.c.acknowledged_ms).order_by(alarm_notes.c.acknowledged_ms.desc())
    if (oldest_ms := connection.scalar(last.offset(MAX_NOTES).limit(1))) is not None:
        until_ms = alarm_notes.c.shelved_until_ms
        over = until_ms.is_(None) | (until_ms < wall_ms())
        connection.execute(delete(alarm_notes).where(alarm_notes.c.acknowledged_ms <= oldest_ms, over))


def counts(points: Iterable[Point]) -> dict[str, Any]:
    """Open alarms by city, county and class: it names no unit, so everybody may see it."""
    found: dict[str, Counter[str]] = {tag: Counter() for tag in ("city", "county", "class")}
    total = 0
    for point in points:
        total += 1
        for tag, by in found.items():
            by[point.tags[_TAGS.index(tag)]] += 1
    return {"open": total, **{f"by_{tag}": by for tag, by in found.items()}}


def place_tags(place: str | None) -> dict[str, str]:
    """The tags of alarms in a county, a city or the province; nothing for None."""
    if place is None or place == PROVINCE:
        return {}
    return {"city": place} if place.endswith("00") else {"county": place}
