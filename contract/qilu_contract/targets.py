"""The programme's four headline targets for 2022."""

from __future__ import annotations

from dataclasses import dataclass

from qilu_contract.places import read_table


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    target: int
    unit: str
    year: int
    title: str
    title_zh: str


TARGETS: dict[str, Target] = {
    row["name"]: Target(
        row["name"], int(row["target"]), row["unit"], int(row["year"]), row["title"], row["title_zh"]
    )
    for row in read_table("targets.csv")
}
