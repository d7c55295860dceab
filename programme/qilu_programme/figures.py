"""The constants of the model, with unit, mark and source (`data/figures.csv`).

Marks: S sourced, C computed, N a standard is named but was not checked, A assumed. Code takes constants by
name from this table only, so a report's list of assumptions is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qilu_contract.catalogue import tables
from qilu_contract.catalogue.places import BRANCHES as KNOWN

SIZES = ("large", "medium", "small", "micro")
SECTORS = ("industry", "service")


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str
    mark: str
    source: str


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of a table that ships with this package, by column name."""
    return tables.read_table(name, "qilu_programme")


FIGURES: Mapping[str, Figure] = {
    row["name"]: Figure(row["name"], float(row["value"]), row["unit"], row["mark"], row["source"])
    for row in read_table("figures.csv")
}


TABLES: Mapping[str, tuple[str, str]] = {
    "cities": (
        "A",
        "weights of the cities by number of enterprises; no source for adoption by city was found",
    ),
    "industry_weights": ("A", "weights of the industries (GB/T 4754-2017) by number of enterprises"),
    "sectors": ("A", "weights of the other sectors by number of enterprises; codes by GB/T 4754 (N)"),
    "seeds": ("S", "industries that the programme names for a city or county; two more rows are assumed"),
    "equipment_mix": ("A", "share of each equipment class in the fleets of an industry"),
    "elsewhere": ("S", "enterprises on cloud that another province reported; no fit uses them"),
    "sets": ("C", "parameter sets that meet both known points, with the fit found in this model"),
}
"""Mark and meaning of the other tables; a row has its own mark if it differs."""


def figure(name: str) -> float:
    """The value of a constant. Raises KeyError for an unknown name."""
    return FIGURES[name].value


def by_size(prefix: str) -> list[float]:
    """The constants `prefix.large` … `prefix.micro`."""
    return [figure(f"{prefix}.{size}") for size in SIZES]


@dataclass(frozen=True, slots=True)
class Branch:
    """An industry: a division of GB/T 4754-2017 or, outside industry and software, a section of it."""

    code: str
    name: str
    name_zh: str
    group: str
    sector: str  # industry or service
    weight: float


def _branches() -> tuple[Branch, ...]:
    industry = [
        Branch(code, found.name, found.name_zh, found.group, "industry", float(row["weight"]))
        for row in read_table("industry_weights.csv")
        for code, found in ((row["industry"], KNOWN[row["industry"]]),)
    ]
    service = [
        Branch(row["code"], found.name, found.name_zh, found.group, "service", float(row["weight"]))
        for row in read_table("sectors.csv")
        for found in (KNOWN[row["code"]],)
    ]
    return (*industry, *service)


BRANCHES: tuple[Branch, ...] = _branches()
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(branch.group for branch in BRANCHES))
CLASSES: tuple[str, ...] = (
    "motor",
    *dict.fromkeys(row["class"] for row in read_table("equipment_mix.csv")),
)
"""Equipment classes; units that no other class claims are motors."""
