"""Calibration within the model: the factor on the hazard with which a parameter set meets the known point.

The plain Bass curve of a set passes 20,000 at launch and 170,000 in October 2020. In the model,
heterogeneity slows it down (enterprises with a high hazard adopt first), while centres and vouchers speed
it up; `fit` compensates both. It is found once, for the default scenario, and ships in `data/sets.csv`.
"""

from __future__ import annotations

from dataclasses import replace

from qilu_programme.figures import figure
from qilu_programme.model import Model
from qilu_programme.months import CHECKPOINT
from qilu_programme.scenario import ParameterSet, Scenario


def calibrate(scenario: Scenario, parameters: ParameterSet, steps: int = 14) -> float:
    """The fit with which `scenario` has `adoption.checkpoint` enterprises on cloud in October 2020, under
    these parameters. Bisection between 0.1 and 3, to 3 / 2^steps; takes about a second per step.
    """
    model = Model(replace(scenario, set=parameters, hazard=1.0))
    low, high = 0.1, 3.0
    for _ in range(steps):
        middle = (low + high) / 2.0
        count = 0
        for step in model.diffusion(middle):
            month, adopters = step.month, step.adopters
            count += len(adopters)
            if month == CHECKPOINT:
                break
        if count < figure("adoption.checkpoint"):
            low = middle
        else:
            high = middle
    return round((low + high) / 2.0, 4)
