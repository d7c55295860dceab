"""Admission: units whose readings gateways may accept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qilu_contract.catalogue.generic import GENERIC
from qilu_contract.catalogue.places import city_of
from sqlalchemy import Connection, select

from qilu_platform.database.schema import enterprises, units
from qilu_platform.database.statements import among, values_table
from qilu_platform.registry.learned_signals import names_of


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


def admission_columns(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    """The same as columns in the order of `ids`: `class` and `owner` are indices in `classes` and `owners`
    (enterprise, county, city, industry), -1 for a unit that is not admitted. `signals`: names of the signals
    that generic units have sent."""
    found: list[Sequence[Any]] = list(zip(*_admitted(connection, ids), strict=True)) or [()] * 6
    known, classes, enterprise, county, industry, on_cloud_ms = found
    # An enterprise never changes its county and industry.
    owners = dict(zip(enterprise, zip(county, industry, strict=True), strict=True))
    place = dict(zip(known, range(len(known)), strict=True))
    places = [place.get(id_, -1) for id_ in ids]
    generic = [id_ for id_, class_ in zip(known, classes, strict=True) if class_ == GENERIC]
    return {
        "classes": list(dict.fromkeys(classes)),
        "owners": [
            (enterprise, county, city_of(county), industry)
            for enterprise, (county, industry) in owners.items()
        ],
        # The last element is that of place -1: a unit that is not admitted.
        "class": list(map([*_numbered(classes), -1].__getitem__, places)),
        "owner": list(map([*_numbered(enterprise), -1].__getitem__, places)),
        "signals": names_of(connection, generic),
        "on_cloud": list(map([*(ms is not None for ms in on_cloud_ms), False].__getitem__, places)),
    }


def _numbered(values: Sequence[str]) -> list[int]:
    """Each value as its index among the different ones, in the order of their first appearance."""
    different = dict.fromkeys(values)
    numbers = dict(zip(different, range(len(different)), strict=True))
    return list(map(numbers.__getitem__, values))


def _admitted(connection: Connection, ids: Sequence[str]) -> Sequence[Any]:
    barred = select(enterprises.c.id).where(enterprises.c.suspended_ms.is_not(None))
    columns = [units.c[name] for name in ("id", "class", "enterprise", "county", "industry", "on_cloud_ms")]
    query = select(*columns).where(
        units.c.retired_ms.is_(None), units.c.suspended_ms.is_(None), units.c.enterprise.not_in(barred)
    )
    if connection.dialect.name == "sqlite":  # which would make an index of the ids first
        given = values_table(list(dict.fromkeys(ids)))
        return connection.execute(query.join_from(given, units, units.c.id == given.c.value)).all()
    return connection.execute(query.where(among(connection, units.c.id, ids))).all()
