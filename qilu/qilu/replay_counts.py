"""Expected counts after each month of a replay, and the platform's counts, by the same names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qilu_programme.counts import Counter
from qilu_programme.draws import Whole
from qilu_programme.events import ACTIONS
from qilu_programme.figures import CLASSES
from qilu_programme.scenario import LEVELS
from qilu_programme.world import CITY_CODES

Counts = dict[str, int]
"""Every count that must agree, by name: `units_on_cloud`, `city/370200/units`, `class/motor`, …"""
MONEY = ("granted", "redeemed", "clawed_back")


def expected(counter: Counter, enterprises: int, units_by_class: Whole) -> Counts:
    """The model's counts. `enterprises` are registered, `units_by_class` too."""
    counts: Counts = dict(counter.values())
    counts["enterprises_on_cloud_now"] = counter.current
    counts["enterprises_registered"] = enterprises
    counts["units_registered"] = int(units_by_class.sum())
    for kind, name in enumerate(ACTIONS):
        counts[f"contracts/{name}"] = int(counter.contracts_by_kind[kind])
    for place, city in enumerate(CITY_CODES):
        counts[f"city/{city}/enterprises"] = int(counter.enterprises_by_city[place])
        counts[f"city/{city}/units"] = int(counter.units_by_city[place])
    for place, name in enumerate(CLASSES):
        counts[f"class/{name}"] = int(units_by_class[place])
    for name, row in zip(MONEY, counter.money.tolist(), strict=True):
        for level, yuan in zip(LEVELS, row, strict=True):
            counts[f"vouchers/{level}/{name}"] = yuan
    return counts


def counted(programme: Mapping[str, Any]) -> Counts:
    """The same counts as `Month.expected`, from the platform's `GET /v1/programme`."""
    counts: Counts = {target["name"]: target["onboarded"] for target in programme["targets"]}
    counts["enterprises_on_cloud_now"] = programme["targets"][0]["current"]
    counts["enterprises_registered"] = programme["registered"]["enterprises"]
    counts["units_registered"] = programme["registered"]["units"]
    for kind, found in programme["contracts"].items():
        counts[f"contracts/{kind}"] = found["onboarded"]
    for city, found in programme["by_city"].items():
        counts[f"city/{city}/enterprises"] = found["enterprises_on_cloud"]
        counts[f"city/{city}/units"] = found["units_on_cloud"]
    for name, found in programme["by_class"].items():
        counts[f"class/{name}"] = found["units_on_cloud"]
    for level, money in programme["vouchers"].items():
        for name, yuan in money.items():
            counts[f"vouchers/{level}/{name}"] = yuan
    return counts


def differences(expected: Counts, found: Counts) -> list[str]:
    """Describe the counts that differ."""
    return [
        f"{name}: the model has {expected.get(name, 0):,}, the platform {found.get(name, 0):,}"
        for name in sorted({*expected, *found})
        if expected.get(name, 0) != found.get(name, 0)
    ]
