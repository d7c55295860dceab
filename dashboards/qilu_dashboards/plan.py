"""The programme's plan as a straight line, with which the pace is compared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from qilu_contract.catalogue.targets import TARGETS

LAUNCH, END = date(2017, 10, 1), date(2022, 12, 31)


@dataclass(frozen=True, slots=True)
class Plan:
    from_count: int
    per_day: float


# About 20,000 enterprises at launch (S, its date inferred). Nothing is known about units, so 0 (A). The
# straight line from there to the target is assumed.
_AT_LAUNCH = {"enterprises_on_cloud": 20_000, "units_on_cloud": 0}

PLANS: dict[str, Plan] = {
    name: Plan(count, (TARGETS[name].target - count) / (END - LAUNCH).days)
    for name, count in _AT_LAUNCH.items()
}
