"""Counts that others have reported about the programme, with source and date: the second counting rule.

Our rule counts what is proven by telemetry. A report counts by a rule that is not published. Both counts are
shown beside each other and are never added.
"""

from __future__ import annotations

from dataclasses import dataclass

from qilu_contract.catalogue.tables import read_table


@dataclass(frozen=True, slots=True)
class Claim:
    """`name` is the core target that it is about, `month` is such as 2020-10. `more`: "more than". `mark` as
    in every table of facts: S has a source."""

    month: str
    name: str
    value: int
    more: bool
    mark: str
    who: str
    source: str


CLAIMS: tuple[Claim, ...] = tuple(
    Claim(
        row["month"],
        row["name"],
        int(row["value"]),
        row["more"] == "1",
        row["mark"],
        row["who"],
        row["source"],
    )
    for row in read_table("claims.csv")
)
"""In the order of months."""

WHY_CLAIMS_DIFFER = (
    "A report may count sensors, meters and machines alike, units that are registered but silent, a unit "
    "once for each platform, or units outside the province that a provincial platform connects."
)
