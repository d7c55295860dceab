"""The programme's counts, read from the counters: never from the registry's rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qilu_contract.catalogue.claims import CLAIMS
from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.catalogue.places import CITIES, PROVINCE
from qilu_contract.catalogue.targets import CORE_TARGETS, Target
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, select

from qilu_platform.counting.activity import active_hours
from qilu_platform.counting.ledger import VOUCHERS
from qilu_platform.database.schema import counters
from qilu_platform.models.fields import Kind, Level

Counts = Mapping[tuple[str, str, str], int]

Counted = tuple[str, str, str]
"""A counter: scope, code, name."""


_FIELDS = {
    "enterprises_registered": "enterprises_registered",
    "enterprises_onboarded": "enterprises_on_cloud",
    "enterprises_current": "enterprises_on_cloud_current",
    "units_registered": "units_registered",
    "units_onboarded": "units_on_cloud",
    "units_current": "units_on_cloud_current",
    "units_active": "units_active",
    "providers": "providers",
    "centres": "centres",
    "contracts_onboarded": "contracts",
    "contracts_current": "contracts_current",
    "recognitions_onboarded": "recognitions",
    "recognitions_current": "recognitions_current",
    "vouchers_granted": "vouchers_granted",
    "vouchers_redeemed": "vouchers_redeemed",
    "vouchers_clawed_back": "vouchers_clawed_back",
}
"""Counters and what the measurement `programme` calls them."""
_COUNTERS = {field: counter for counter, field in _FIELDS.items()}


def counted_by(target: Target) -> tuple[Counted, Counted]:
    """Counters of a target, in total and current."""
    scope, code, field = target.counted_in
    counter = _COUNTERS[field]
    # Counts without a separate counter are current already, or never end.
    return (scope, code, counter), (scope, code, _COUNTERS.get(f"{field}_current", counter))


def read_counts(connection: Connection) -> dict[tuple[str, str, str], int]:
    """(scope, code, name) → value, for every scope but the counties."""
    rows = connection.execute(select(counters).where(counters.c.scope != "county"))
    counts = {(row.scope, row.code, row.name): int(row.value) for row in rows}
    counts["province", PROVINCE, "units_active"] = sum(active_hours(connection).values())
    return counts


def programme(counts: Counts) -> dict[str, Any]:
    """The programme object of the API. On cloud means onboarded: it never decreases."""

    def count(scope: str, code: str, name: str) -> int:
        return counts.get((scope, code, name), 0)

    targets = []
    for target in CORE_TARGETS.values():
        onboarded, current = (count(*counted) for counted in counted_by(target))
        targets.append(
            {
                "name": target.name,
                "target": target.target,
                "onboarded": onboarded,
                "current": current,
                "reached": target.reached(onboarded),
            }
        )
    return {
        "as_of_ms": wall_ms(),
        "targets": targets,
        "claims": _claims(counts),
        "registered": {
            "enterprises": count("province", PROVINCE, "enterprises_registered"),
            "units": count("province", PROVINCE, "units_registered"),
        },
        "active": count("province", PROVINCE, "units_active"),
        "contracts": {
            kind.value: {
                "onboarded": count("kind", kind, "contracts_onboarded"),
                "current": count("kind", kind, "contracts_current"),
            }
            for kind in Kind
        },
        "vouchers": {
            level.value: {name: count("level", level, event) for name, event in VOUCHERS.items()}
            for level in Level
        },
        "by_city": {
            code: {
                "units_registered": count("city", code, "units_registered"),
                "units_on_cloud": count("city", code, "units_onboarded"),
                "enterprises_registered": count("city", code, "enterprises_registered"),
                "enterprises_on_cloud": count("city", code, "enterprises_onboarded"),
            }
            for code in CITIES
        },
        "by_class": {
            name: {
                "units_registered": count("class", name, "units_registered"),
                "units_on_cloud": count("class", name, "units_onboarded"),
            }
            for name in REGISTRABLE
        },
    }


def _claims(counts: Counts) -> list[dict[str, Any]]:
    """Counts that others reported, beside those that telemetry proves."""
    return [
        {
            "name": claim.name,
            "month": claim.month,
            "reported": claim.value,
            "more": claim.more,
            "proven": counts.get(counted_by(CORE_TARGETS[claim.name])[0], 0),
            "who": claim.who,
            "source": claim.source,
        }
        for claim in CLAIMS
    ]


def points(counts: Counts, ts_ms: int) -> list[Point]:
    """A point for each scope that has counted anything, at `ts_ms`."""
    fields: dict[tuple[str, str], dict[str, int]] = {}
    for (scope, code, name), value in counts.items():
        # Every point holds units_registered: the field that points are counted by.
        fields.setdefault((scope, code), {"units_registered": 0})[_FIELDS[name]] = value
    return [Point("programme", what, ts_ms, values) for what, values in sorted(fields.items())]
