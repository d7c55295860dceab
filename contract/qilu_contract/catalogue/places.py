"""Cities, counties (GB/T 2260) and industries (GB/T 4754-2017) of the province."""

from __future__ import annotations

from dataclasses import dataclass

from qilu_contract.catalogue.tables import read_table

PROVINCE = "370000"
"""Shandong's own code."""


@dataclass(frozen=True, slots=True)
class City:
    code: str
    name: str
    name_zh: str


SHANDONG = City(PROVINCE, "Shandong", "山东省")
"""The province itself, named like its cities."""


@dataclass(frozen=True, slots=True)
class County:
    """One of 136 districts, counties and county-level cities, or one of 15 development zones (`kind ==
    "zone"`).
    """

    code: str
    city: str
    kind: str
    name: str
    name_zh: str


@dataclass(frozen=True, slots=True)
class Industry:
    """A division of GB/T 4754-2017, in one of the groups that the programme speaks of."""

    code: str
    name: str
    name_zh: str
    group: str
    mark: str


def city_of(county: str) -> str:
    """The city's code: the first four digits of the county's."""
    return county[:4] + "00"


CITIES: dict[str, City] = {row["code"]: City(**row) for row in read_table("cities.csv")}
COUNTIES: dict[str, County] = {row["code"]: County(**row) for row in read_table("counties.csv")}
INDUSTRIES: dict[str, Industry] = {row["code"]: Industry(**row) for row in read_table("industries.csv")}
BRANCHES: dict[str, Industry] = INDUSTRIES | {
    row["code"]: Industry(**row) for row in read_table("sections.csv")
}
"""Everything that an enterprise may be in: the programme's industries, and for all others the section of GB/T
4754-2017 (`F`)."""
