"""The programme's append-only ledger of events, and the counters that are its sums.

Both change in one transaction with the registry's own rows, so a crash neither loses nor doubles a count, and
`audit` compares the three: replayed ledger, counters, registry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from qilu_contract.catalogue.places import PROVINCE, city_of
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection

from qilu_platform.database import seals
from qilu_platform.database.schema import counters, ledger
from qilu_platform.database.statements import insert_rows


class Event(StrEnum):
    ENTERPRISE_REGISTERED = "enterprise_registered"
    ENTERPRISE_ONBOARDED = "enterprise_onboarded"  # its first contract, once only
    ENTERPRISE_LEFT = "enterprise_left"  # its last current contract ended
    ENTERPRISE_RETURNED = "enterprise_returned"  # a contract again after that
    ENTERPRISE_SUSPENDED = "enterprise_suspended"  # current and suspended, in whichever order
    ENTERPRISE_RESUMED = "enterprise_resumed"
    UNIT_REGISTERED = "unit_registered"
    UNIT_ONBOARDED = "unit_onboarded"  # its first reading, once only
    UNIT_LEFT = "unit_left"  # on cloud and retired, in whichever order the two became known
    UNIT_SUSPENDED = "unit_suspended"  # on cloud and suspended, likewise
    UNIT_RESUMED = "unit_resumed"
    PROVIDER_REGISTERED = "provider_registered"
    CENTRE_OPENED = "centre_opened"
    CONTRACT_BEGUN = "contract_begun"
    CONTRACT_ENDED = "contract_ended"
    RECOGNISED = "recognised"  # its kind says as what
    RECOGNITION_ENDED = "recognition_ended"  # a platform has risen to a higher tier
    VOUCHERS_GRANTED = "vouchers_granted"  # these three happen once for each yuan
    VOUCHERS_REDEEMED = "vouchers_redeemed"
    VOUCHERS_CLAWED_BACK = "vouchers_clawed_back"


_EFFECTS: Final[Mapping[Event, Mapping[str, int]]] = {
    Event.ENTERPRISE_REGISTERED: {"enterprises_registered": 1},
    Event.ENTERPRISE_ONBOARDED: {"enterprises_onboarded": 1, "enterprises_current": 1},
    Event.ENTERPRISE_LEFT: {"enterprises_current": -1},
    Event.ENTERPRISE_RETURNED: {"enterprises_current": 1},
    Event.ENTERPRISE_SUSPENDED: {"enterprises_current": -1},
    Event.ENTERPRISE_RESUMED: {"enterprises_current": 1},
    Event.UNIT_REGISTERED: {"units_registered": 1},
    Event.UNIT_ONBOARDED: {"units_onboarded": 1, "units_current": 1},
    Event.UNIT_LEFT: {"units_current": -1},
    Event.UNIT_SUSPENDED: {"units_current": -1},
    Event.UNIT_RESUMED: {"units_current": 1},
    Event.PROVIDER_REGISTERED: {"providers": 1},
    Event.CENTRE_OPENED: {"centres": 1},
    Event.CONTRACT_BEGUN: {"contracts_onboarded": 1, "contracts_current": 1},
    Event.CONTRACT_ENDED: {"contracts_current": -1},
    Event.RECOGNISED: {"recognitions_onboarded": 1, "recognitions_current": 1},
    Event.RECOGNITION_ENDED: {"recognitions_current": -1},
    Event.VOUCHERS_GRANTED: {"vouchers_granted": 1},
    Event.VOUCHERS_REDEEMED: {"vouchers_redeemed": 1},
    Event.VOUCHERS_CLAWED_BACK: {"vouchers_clawed_back": 1},
}


def correction(counter: str) -> str:
    """The event by which `qilu platform audit --repair` corrects a counter; its count may be negative."""
    return f"corrected_{counter}"


EFFECTS: Final[Mapping[str, Mapping[str, int]]] = {
    **{str(event): effects for event, effects in _EFFECTS.items()},
    **{correction(name): {name: 1} for effects in _EFFECTS.values() for name in effects},
}
"""Increments of counters by one entry."""

VOUCHERS: Final[Mapping[str, Event]] = {
    "granted": Event.VOUCHERS_GRANTED,
    "redeemed": Event.VOUCHERS_REDEEMED,
    "clawed_back": Event.VOUCHERS_CLAWED_BACK,
}
"""Meaning of a disbursement's columns of money."""


class Entry(NamedTuple):
    """A ledger entry: an event in one place; fields that do not apply are None."""

    event: str
    county: str | None = None
    city: str | None = None
    class_: str | None = None
    kind: str | None = None
    level: str | None = None

    def scopes(self) -> list[tuple[str, str]]:
        """The scopes that count it, as (scope, code)."""
        named = (
            ("city", self.city),
            ("county", self.county),
            ("class", self.class_),
            ("kind", self.kind),
            ("level", self.level),
        )
        return [("province", PROVINCE), *((scope, code) for scope, code in named if code is not None)]


def in_county(event: str, county: str, class_: str | None = None) -> Entry:
    return Entry(event, county, city_of(county), class_)


def append(
    connection: Connection, entries: Counter[Entry], sealed: Mapping[str, seals.Sum] | None = None
) -> None:
    """Add to the ledger, to the counters and to the seals of the tables written to, last in the caller's
    transaction: these rows are what all writers share."""
    write(connection, +entries, sealed or {})


def write(connection: Connection, entries: Mapping[Entry, int], sealed: Mapping[str, seals.Sum]) -> None:
    """`append`, of counts that may be negative: corrections."""
    at_ms = wall_ms()
    lines = [
        {
            "at_ms": at_ms,
            "event": str(entry.event),
            "city": entry.city,
            "county": entry.county,
            "class": entry.class_,
            "kind": None if entry.kind is None else str(entry.kind),
            "level": None if entry.level is None else str(entry.level),
            "count": count,
        }
        for entry, count in entries.items()
    ]
    if lines:
        connection.execute(insert_rows(connection, ledger, lines))
    totals = add_up(entries.items())
    changes = [
        {"scope": scope, "code": code, "name": name, "value": value}
        for (scope, code, name), value in sorted(totals.items())
        if value
    ]
    if changes:
        insert = insert_rows(connection, counters, changes)
        connection.execute(
            insert.on_conflict_do_update(
                index_elements=["scope", "code", "name"],
                set_={"value": counters.c.value + insert.excluded["value"]},
            )
        )
    seals.add(connection, {**sealed, "ledger": seals.sum_up_rows(connection, "ledger", lines)})


def add_up(entries: Iterable[tuple[Entry, int]]) -> Counter[tuple[str, str, str]]:
    totals: Counter[tuple[str, str, str]] = Counter()
    for entry, count in entries:
        for name, step in EFFECTS[entry.event].items():
            for scope, code in entry.scopes():
                totals[scope, code, name] += step * count
    return totals
