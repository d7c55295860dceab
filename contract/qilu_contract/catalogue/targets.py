"""The programme's countable targets for 2022 from its documents, and the check whether a count reaches
one."""

from __future__ import annotations

from dataclasses import dataclass

from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.catalogue.tables import read_table


@dataclass(frozen=True, slots=True)
class Target:
    """A row of the programme's documents (`row` is its name there). `more`: the target itself is not enough
    ("more than 500"). `most` is the upper end if the document gives a range. `recognised_as` is the kind of
    recognition that counts towards it, if any; `current`: only recognitions still in force count, not all
    that were ever granted.
    """

    name: str
    target: int
    most: int | None
    more: bool
    unit: str
    recognised_as: str | None
    current: bool
    title: str
    title_zh: str
    row: str

    def reached(self, value: float) -> bool:
        return value > self.target if self.more else value >= self.target

    @property
    def counted_in(self) -> tuple[str, str, str]:
        """Scope, code and field of its count in the measurement `programme`."""
        if self.recognised_as is None:
            return "province", PROVINCE, self.name
        return "kind", self.recognised_as, "recognitions_current" if self.current else "recognitions"

    @property
    def first(self) -> int:
        """The lowest count that reaches it."""
        return self.target + self.more

    @property
    def wanted(self) -> str:
        """`> 300,000`, `30`, `1–2`."""
        if self.most is not None:
            return f"{self.target}–{self.most}"
        return f"{'> ' if self.more else ''}{self.target:,}"


CORE_TARGETS: dict[str, Target] = {
    row["name"]: Target(
        row["name"],
        int(row["target"]),
        int(row["most"]) if row["most"] else None,
        row["more"] == "1",
        row["unit"],
        row["recognised_as"] or None,
        row["current"] == "1",
        row["title"],
        row["title_zh"],
        row["row"],
    )
    for row in read_table("targets.csv")
}
"""All that the platform counts."""

_HEADLINE = ("enterprises_on_cloud", "units_on_cloud", "providers", "centres")

TARGETS: dict[str, Target] = {name: CORE_TARGETS[name] for name in _HEADLINE}
"""The four headline targets, which milestones follow."""
