"""Every constant of the model, with its unit, its mark and where it comes from (`data/figures.csv`).

Marks: S a source was found, C computed, N a standard is named but not checked, A assumed. Code takes a
constant by name from here and from nowhere else, so the list of assumptions that a report prints is complete.
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
    "cities": ("A", "how many enterprises each city has, by weight; adoption by city was not found"),
    "industry_weights": ("A", "how many enterprises each industry (GB/T 4754-2017) has, by weight"),
    "sectors": ("A", "how many enterprises each other sector has, by weight; codes by GB/T 4754 (N)"),
    "seeds": ("S", "which industries the programme names for a city or county; two rows more are assumed"),
    "equipment_mix": ("A", "the share of each equipment class in an industry's fleets"),
    "sets": ("C", "the parameter sets that pass both known points, with the fit found in this model"),
}
"""Mark and meaning of the tables beside the figures; single rows have their own mark where it differs."""


def figure(name: str) -> float:
    """The constant's value; KeyError if there is none of this name."""
    return FIGURES[name].value


def by_size(prefix: str) -> list[float]:
    """The constants `prefix.large` … `prefix.micro`."""
    return [figure(f"{prefix}.{size}") for size in SIZES]


@dataclass(frozen=True, slots=True)
class Branch:
    """An industry (division of GB/T 4754-2017) or, outside industry and software, a section of it."""

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
"""Equipment classes; what no other class claims is a motor."""
