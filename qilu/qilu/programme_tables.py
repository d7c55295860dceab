"""Results of the programme's model, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from qilu_contract.catalogue.places import CITIES
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_programme.counts import STARS
from qilu_programme.months import LABELS, MONTHS
from qilu_programme.runs import Comparison, Ensemble
from qilu_programme.world import CITY_CODES
from rich.table import Table


def targets_table(ensemble: Ensemble) -> Table:
    """Each target, the value that the runs reach, and when."""
    many = len(ensemble.tables) > 1
    title = f"{ensemble.scenario.name}, end of 2022" + (
        f": median of {len(ensemble.tables)} runs" if many else ""
    )
    table = Table(title=title, title_justify="left")
    table.add_column("target", min_width=24)
    for heading in ("wanted", "count", *(("10–90 %", "chance") if many else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("reached in", no_wrap=True)
    for name, target in CORE_TARGETS.items():
        value = ensemble.value(name)
        cells = [target.title, target.wanted, f"{value:,}"]
        if many:
            low, high = ensemble.band(name)
            cells += [f"{low[-1]:,.0f}–{high[-1]:,.0f}", f"{ensemble.chance(name):.0%}"]
        when = ensemble.reached_in(name)
        cells.append(f"[green]{when}[/]" if when else "[red]not reached[/]")
        table.add_row(*cells)
    return table


def comparison_tables(comparison: Comparison) -> Iterator[Table]:
    """Targets, public funds, depth and months of two scenarios."""
    yield _both_targets(comparison)
    yield _funds(comparison)
    yield _depth(comparison)
    yield _months(comparison)


def _both_targets(comparison: Comparison) -> Table:
    one, two = comparison.first, comparison.second
    title = "Targets at the end of 2022, and the month in which each is reached"
    targets = Table(title=title, title_justify="left")
    targets.add_column("target")
    for heading in ("wanted", one.scenario.name, two.scenario.name, "difference"):
        targets.add_column(heading, justify="right", no_wrap=True)
    for name, target in CORE_TARGETS.items():
        cells = [f"{side.value(name):,}\n{side.reached_in(name) or 'not'}" for side in (one, two)]
        gap = int(comparison.difference(name)[-1])
        targets.add_row(target.title, target.wanted, *cells, f"{gap:+,}")
    return targets


def _funds(comparison: Comparison) -> Table:
    first, second, gap = comparison.funds_cny()
    title = "Public funds (vouchers and awards) in million CNY, and in CNY per additional enterprise and unit"
    funds = Table(title=title, title_justify="left")
    for heading in (comparison.first.scenario.name, comparison.second.scenario.name, "difference"):
        funds.add_column(heading, justify="right")
    for heading in ("CNY per enterprise", "CNY per unit"):
        funds.add_column(heading, justify="right")
    per = (comparison.funds_per(name) for name in ("enterprises_on_cloud", "units_on_cloud"))
    funds.add_row(
        f"{first / 1e6:,.1f}",
        f"{second / 1e6:,.1f}",
        f"{gap / 1e6:+,.1f}",
        *("–" if each is None else f"{each:,.0f}" for each in per),
    )
    return funds


def _depth(comparison: Comparison) -> Table:
    depth = Table(
        title="Enterprises on cloud; ★★★★: with equipment; ★★★★★: all four kinds for a year",
        title_justify="left",
    )
    depth.add_column("scenario")
    for stars in STARS:
        depth.add_column("★" * stars, justify="right")
    for side in (comparison.first, comparison.second):
        depth.add_row(side.scenario.name, *(f"{count:,}" for count in side.stars()))
    return depth


def _months(comparison: Comparison) -> Table:
    months = Table(
        title="Month by month: the second less the first (all months with --json)", title_justify="left"
    )
    for heading in ("month", "enterprises on cloud", "units on cloud"):
        months.add_column(heading, justify="left" if heading == "month" else "right")
    gaps = [comparison.difference(name) for name in ("enterprises_on_cloud", "units_on_cloud")]
    for month in sorted({*range(2, MONTHS, 6), MONTHS - 1}):
        months.add_row(LABELS[month], *(f"{int(gap[month]):+,}" for gap in gaps))
    return months


def by_city(comparison: Comparison) -> str:
    """Enterprises on cloud of the second scenario less the first, city by city, the largest loss first."""
    cities = sorted(zip(comparison.difference_by_city(), CITY_CODES, strict=True), key=lambda pair: pair[0])
    differences = ", ".join(f"{CITIES[code].name} {int(gap):+,}" for gap, code in cities if gap)
    return differences or "no difference"
