"""Admission: units whose readings gateways may accept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qilu_contract.catalogue.places import city_of
from sqlalchemy import Connection, select

from qilu_platform.database.schema import enterprises, units
from qilu_platform.database.statements import among


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
    """The same as columns in the order of `ids`: `class` and `owner` are indices in `classes` and `owners`
    (enterprise, county, city, industry), -1 for a unit that is not admitted."""
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
