"""Catalogue that the console loads once: places, industries, targets, and complete classes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
from qilu_contract.catalogue.classes import OWN
from qilu_contract.catalogue.effectiveness import EFFECTIVENESS
from qilu_contract.catalogue.equipment import EquipmentClass
from qilu_contract.catalogue.generic import GENERIC, REGISTRABLE
from qilu_contract.catalogue.limits import LIMITS
from qilu_contract.catalogue.places import BRANCHES, CITIES, COUNTIES, SHANDONG
from qilu_contract.catalogue.tables import read_table
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.catalogue.titles import titles


def console_catalogue() -> bytes:
    """JSON."""
    return msgspec.json.encode(
        {
            "province": SHANDONG,
            "cities": list(CITIES.values()),
            "counties": _counties(),
            "industries": list(BRANCHES.values()),
            "targets": [
                {
                    "name": each.name,
                    "target": each.target,
                    "wanted": each.wanted,
                    "title": each.title,
                    "title_zh": each.title_zh,
                }
                for each in CORE_TARGETS.values()
            ],
            "classes": [_class(each) for each in REGISTRABLE.values()],
        }
    )


def _counties() -> list[dict[str, Any]]:
    """With their approximate centres, from which the console draws a city's counties."""
    centres = {row["code"]: row for row in read_table("county_points.csv")}
    return [
        asdict(each) | {name: float(centres[each.code][name]) for name in ("longitude", "latitude")}
        for each in COUNTIES.values()
    ]


def _class(class_: EquipmentClass) -> dict[str, Any]:
    return {
        "name": class_.name,
        "title": class_.title,
        "title_zh": class_.title_zh,
        "own": class_.name in OWN,
        "learns": class_.name == GENERIC,
        "stoppable": class_.stoppable,
        "oee": class_.name in EFFECTIVENESS,
        "signals": [
            {
                "name": each.name,
                **titles("signal", class_.name, each.name)._asdict(),
                "unit": each.unit,
                "type": each.type,
                "resolution": each.resolution,
                "nominal": each.nominal,
                "low": each.low,
                "high": each.high,
                "interval_s": each.interval_s,
                "mark": each.mark,
                "source": each.source,
                "limits": [
                    {
                        "level": limit.level,
                        "kind": limit.kind,
                        "limit": limit.limit,
                        "title": limit.title,
                        "title_zh": limit.title_zh,
                    }
                    for limit in LIMITS[class_.name]
                    if limit.signal == each.name
                ],
            }
            for each in class_.signals
        ],
        "set_points": [
            asdict(each) | titles("set_point", class_.name, each.name)._asdict() for each in class_.set_points
        ],
        "faults": [
            {
                "name": each.name,
                **titles("fault", class_.name, each.name)._asdict(),
                "signature": each.signature,
                "shows": [[sign.signal, sign.direction] for sign in each.shows],
                "mark": each.mark,
                "source": each.source,
            }
            for each in class_.faults
        ],
    }
