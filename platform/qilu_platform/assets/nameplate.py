"""The nameplate of a unit: what the registry and the equipment catalogue know about it.

The registry holds no maker, type or year of construction, so the nameplate has none.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.catalogue.places import BRANCHES, CITIES, COUNTIES
from sqlalchemy import Connection

from qilu_platform.database.schema import enterprises, units
from qilu_platform.registry.listing import get_row


def unit_and_nameplate(connection: Connection, id_: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A unit as the API shows it, and its nameplate; None if there is no such unit."""
    unit = get_row(connection, units, id_)
    if unit is None:
        return None
    owner = get_row(connection, enterprises, unit["enterprise"])
    assert owner is not None  # a unit is registered to a registered enterprise, which is never removed
    class_, county = REGISTRABLE[unit["class"]], COUNTIES[unit["county"]]
    return unit, {
        "identifier": unit["identifier"],
        "serial_number": unit["id"],
        "designation": class_.title,
        "designation_zh": class_.title_zh,
        "enterprise": owner["id"],
        "enterprise_name": owner["name"],
        "uscc": owner["uscc"],
        "industry": BRANCHES[unit["industry"]].name,
        "county": county.name,
        "city": CITIES[county.city].name,
    }


def links(unit: dict[str, Any]) -> dict[str, str]:
    """Addresses of what the platform has about a unit, relative to its own."""
    root = f"/v1/units/{unit['id']}"
    return {
        "self": f"/v1/resolve/{quote(unit['identifier'])}",
        "unit": root,
        "enterprise": f"/v1/enterprises/{unit['enterprise']}",
        "latest": f"{root}/latest",
        "readings": f"{root}/readings",
        "commands": f"{root}/commands",
        "problems": f"{root}/problems",
        "shell": f"{root}/aas",
        "console": f"/#/unit/{unit['id']}",
    }
