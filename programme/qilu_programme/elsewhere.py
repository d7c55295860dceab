"""Another province as a test of the curve's shape, with points that no fit has seen (`data/elsewhere.csv`).

Zhejiang began in January 2017. A parameter set says how much larger the second count is than the first,
whatever the size of the market: F(t2) / F(t1) of the Bass curve. The 2017 count is of new enterprises; those
on cloud before are unknown and taken as none (A).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qilu_programme.figures import read_table
from qilu_programme.scenario import SETS, ParameterSet

BEGAN = (2017, 1)
"""Year and month in which Zhejiang's plan began (A: its first report counts from January)."""


@dataclass(frozen=True, slots=True)
class Point:
    place: str
    month: str
    enterprises: int
    mark: str
    source: str

    @property
    def months(self) -> int:
        """Months from the begin to the end of this month."""
        year, month = map(int, self.month.split("-"))
        return (year - BEGAN[0]) * 12 + month - BEGAN[1] + 1


POINTS: tuple[Point, ...] = tuple(
    Point(row["place"], row["month"], int(row["enterprises"]), row["mark"], row["source"])
    for row in read_table("elsewhere.csv")
)


def bass_share(parameters: ParameterSet, months: int) -> float:
    """The share of the market that has adopted after so many months from zero (Bass 1969)."""
    p, q = parameters.p, parameters.q
    fading = math.exp(-(p + q) * months / 12.0)
    return (1.0 - fading) / (1.0 + q / p * fading)


@dataclass(frozen=True, slots=True)
class Check:
    """Prediction of the second point from the first, by a parameter set."""

    set: str
    predicted: int
    market: int
    """The market with which the curve passes the first point."""
    reported: int

    @property
    def ratio(self) -> float:
        return self.predicted / self.reported


def checks() -> tuple[Check, ...]:
    """The prediction of each parameter set."""
    first, second = POINTS
    found = []
    for parameters in SETS.values():
        market = first.enterprises / bass_share(parameters, first.months)
        predicted = market * bass_share(parameters, second.months)
        found.append(Check(parameters.name, round(predicted), round(market), second.enterprises))
    return tuple(found)
