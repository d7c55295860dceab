"""Ensembles and comparisons: many runs of a scenario with median and band, and two scenarios side by side.

Run k of a scenario has the scenario's seed plus k and one of the equally good parameter sets in turn,
beginning with the scenario's own. The band therefore covers both chance and the uncertainty that two known
points leave. Two scenarios are compared run by run with the same seeds and sets, so they differ only in
policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.targets import CORE_TARGETS

from qilu_programme.counts import Table
from qilu_programme.draws import Values
from qilu_programme.model import run
from qilu_programme.months import LABELS, MONTHS
from qilu_programme.scenario import LEVELS, SETS, Scenario
from qilu_programme.world import CITY_CODES

BAND = (10.0, 90.0)
"""The band's percentiles (A: the usual 80 %)."""

Shown = Callable[[int, int], None]
"""Progress callback: number of finished runs, and number of runs."""


@dataclass(frozen=True)
class Ensemble:
    """Runs of one scenario; `tables[0]` is the scenario as written."""

    scenario: Scenario
    sets: tuple[str, ...]
    tables: tuple[Table, ...]

    def series(self, name: str) -> NDArray[np.int64]:
        """Run × month of a core target's count."""
        return np.array([table.values[name] for table in self.tables])

    def median(self, name: str) -> Values:
        return np.asarray(np.median(self.series(name), axis=0), dtype=np.float64)

    def band(self, name: str) -> tuple[Values, Values]:
        low, high = np.percentile(self.series(name), BAND, axis=0)
        return low, high

    def value(self, name: str) -> int:
        """The count at the end: the median over the runs, rounded down."""
        return int(np.floor(self.median(name)[-1]))

    def stars(self) -> list[int]:
        """Enterprises on cloud at the end, by Jiangsu's stars of depth (three, four, five): medians."""
        return [int(count) for count in np.median([table.stars for table in self.tables], axis=0)]

    def chance(self, name: str) -> float:
        """The fraction of runs that reach the target, 0 to 1."""
        ends = self.series(name)[:, -1]
        return sum(CORE_TARGETS[name].reached(int(end)) for end in ends) / len(ends)

    def reached_in(self, name: str) -> str | None:
        """The first month in which the median reaches the target, or None."""
        for month, value in enumerate(self.median(name)):
            if CORE_TARGETS[name].reached(float(value)):
                return LABELS[month]
        return None


def variant(scenario: Scenario, number: int) -> Scenario:
    """The scenario with the seed and parameter set of run `number`."""
    names = [scenario.set.name, *(name for name in SETS if name != scenario.set.name)]
    return replace(scenario, seed=scenario.seed + number, set=SETS[names[number % len(names)]])


def run_many(scenario: Scenario, runs: int, shown: Shown | None = None) -> Ensemble:
    """Make `runs` runs, one after the other; each takes a few seconds."""
    tables, sets = [], []
    for number in range(runs):
        changed = variant(scenario, number)
        tables.append(run(changed, classes=number == 0))
        sets.append(changed.set.name)
        if shown is not None:
            shown(number + 1, runs)
    return Ensemble(scenario, tuple(sets), tuple(tables))


def as_json(ensemble: Ensemble) -> dict[str, Any]:
    """The ensemble for programs: counts by month (medians if there is more than one run) and the targets."""
    many = len(ensemble.tables) > 1
    by_city = {
        name: np.median([getattr(table, name) for table in ensemble.tables], axis=0)
        for name in ("enterprises_by_city", "units_by_city")
    }
    months = []
    for month in range(MONTHS):
        row: dict[str, Any] = {"month": LABELS[month]}
        for name in ("enterprises_on_cloud", "units_on_cloud"):
            row[name] = int(np.floor(ensemble.median(name)[month]))
            if many:
                low, high = ensemble.band(name)
                row[f"{name}_band"] = [int(low[month]), int(high[month])]
        row["by_city"] = {
            code: {
                "enterprises_on_cloud": int(by_city["enterprises_by_city"][month, index]),
                "units_on_cloud": int(by_city["units_by_city"][month, index]),
            }
            for index, code in enumerate(CITY_CODES)
        }
        months.append(row)
    targets = []
    for name, target in CORE_TARGETS.items():
        value = ensemble.value(name)
        entry: dict[str, Any] = {
            "name": name,
            "target": target.target,
            "value": value,
            "reached": target.reached(value),
            "reached_in": ensemble.reached_in(name),
        }
        if target.most is not None:
            entry["most"] = target.most
        if many:
            low, high = ensemble.band(name)
            entry["band"] = [int(low[-1]), int(high[-1])]
            entry["chance"] = round(ensemble.chance(name), 3)
        targets.append(entry)
    money = {
        what: {
            level: int(np.median([getattr(table, what)[-1, index] for table in ensemble.tables]))
            for index, level in enumerate(LEVELS)
        }
        for what in ("granted", "redeemed", "clawed_back")
    }
    return {
        "scenario": ensemble.scenario.name,
        "scenario_sha256": ensemble.scenario.sha256,
        "seed": ensemble.scenario.seed,
        "runs": len(ensemble.tables),
        "sets": list(ensemble.sets),
        "months": months,
        "targets": targets,
        "vouchers_cny": money,
        "stars": ensemble.stars(),
    }


@dataclass(frozen=True)
class Comparison:
    """Two scenarios, run by run with the same seeds and sets."""

    first: Ensemble
    second: Ensemble

    def difference(self, name: str) -> Values:
        """Second − first by month: the median over the runs."""
        gaps = self.second.series(name) - self.first.series(name)
        return np.asarray(np.median(gaps, axis=0), dtype=np.float64)

    def difference_by_city(self) -> Values:
        """Second − first of enterprises on cloud at the end, by city: the median over the runs."""
        gaps = [
            after.enterprises_by_city[-1] - before.enterprises_by_city[-1]
            for before, after in zip(self.first.tables, self.second.tables, strict=True)
        ]
        return np.asarray(np.median(gaps, axis=0), dtype=np.float64)

    def funds_cny(self) -> tuple[int, int, int]:
        """Public funds of the first, of the second, and second − first: medians over the runs, in CNY."""
        both = [[table.funds_cny for table in side.tables] for side in (self.first, self.second)]
        gaps = np.subtract(both[1], both[0])
        first, second, gap = (int(np.median(values)) for values in (*both, gaps))
        return first, second, gap

    def funds_per(self, name: str) -> float | None:
        """Public funds (CNY) per additional unit of a count that the second reaches; None without a
        difference."""
        more = int(self.difference(name)[-1])
        return self.funds_cny()[2] / more if more else None

    def as_json(self) -> dict[str, Any]:
        names = ("enterprises_on_cloud", "units_on_cloud")
        gaps = {name: self.difference(name) for name in CORE_TARGETS}
        cities = self.difference_by_city()
        return {
            "first": self.first.scenario.name,
            "second": self.second.scenario.name,
            "runs": len(self.first.tables),
            "stars": {"first": self.first.stars(), "second": self.second.stars()},
            "funds_cny": dict(zip(("first", "second", "difference"), self.funds_cny(), strict=True)),
            "funds_cny_per_additional": {name: self.funds_per(name) for name in names},
            "months": [
                {"month": LABELS[month], **{name: int(gaps[name][month]) for name in names}}
                for month in range(MONTHS)
            ],
            "by_city": {code: int(cities[index]) for index, code in enumerate(CITY_CODES)},
            "targets": [
                {
                    "name": name,
                    "target": target.target,
                    "first": self.first.value(name),
                    "second": self.second.value(name),
                    "difference": int(gaps[name][-1]),
                    "first_reached_in": self.first.reached_in(name),
                    "second_reached_in": self.second.reached_in(name),
                }
                for name, target in CORE_TARGETS.items()
            ],
        }


def compare(first: Scenario, second: Scenario, runs: int, shown: Shown | None = None) -> Comparison:
    """Run both scenarios, the second with the seed of the first."""
    second = replace(second, seed=first.seed)
    total = 2 * runs

    def halfway(done: int, _: int) -> None:
        if shown is not None:
            shown(done, total)

    before = run_many(first, runs, halfway)
    after = run_many(second, runs, lambda done, _: halfway(runs + done, total))
    return Comparison(before, after)
