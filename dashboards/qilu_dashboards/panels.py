"""The kinds of panel that the dashboards use, each with one look."""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.builders import bargauge, common, dashboard, gauge, stat, table, timeseries
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from qilu_dashboards.influxql import DATA_SOURCE, Target

EVERY = "10s"
"""The shortest step of a graph: every interval then holds at least one roll-up point."""

BLUE, GREEN, ORANGE, RED = "#3274d9", "#37872d", "#ff9830", "#e02f44"


def thresholds(*steps: tuple[float | None, str], percent: bool = False) -> dashboard.ThresholdsConfig:
    """Colours from a value on; the first step starts at None."""
    mode = ThresholdsMode.PERCENTAGE if percent else ThresholdsMode.ABSOLUTE
    return dashboard.ThresholdsConfig().mode(mode).steps([Threshold(value, color) for value, color in steps])


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def against_target(title: str, target: int, query: str) -> gauge.Panel:
    """A gauge that is full, and green, when the target is reached."""
    return (
        gauge.Panel()
        .title(title)
        .description(f"Target for 2022: {target:,}")
        .datasource(DATA_SOURCE)
        .with_target(Target(query))
        .unit("locale")
        .min(0)
        .max(target)
        .thresholds(thresholds((None, BLUE), (100, GREEN), percent=True))
        .reduce_options(_last())
        .show_threshold_markers(False)
        .height(6)
        .span(6)
    )


def number(
    title: str, query: str, unit: str, *, span: int = 4, steps: dashboard.ThresholdsConfig | None = None
) -> stat.Panel:
    """The newest value, large, with its course behind it."""
    return (
        stat.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query))
        .unit(unit)
        .thresholds(steps or thresholds((None, BLUE)))
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.AREA)
        .interval(EVERY)
        .reduce_options(_last())
        .height(4)
        .span(span)
    )


def course(
    title: str,
    query: str,
    unit: str,
    *,
    alias: str = "$col",
    names: Mapping[str, str] | None = None,
    from_zero: bool = True,
) -> timeseries.Panel:
    """Values over time. `names` shows a series, known by its tag's value, under a readable name."""
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query, alias))
        .unit(unit)
        .interval(EVERY)
        .line_width(2)
        .fill_opacity(8)
        .show_points(options.VisibilityMode.NEVER)
        .span_nulls(True)
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .height(9)
        .span(12)
    )
    if from_zero:
        panel.min(0)
    for value, name in (names or {}).items():
        panel.override_by_name(value, [DynamicConfigValue("displayName", name)])
    return panel


def bars(title: str, query: str, alias: str, names: Mapping[str, str], *, height: int = 9) -> bargauge.Panel:
    """One bar for each series, known by its tag's value and shown under its name."""
    panel = (
        bargauge.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query, alias))
        .unit("locale")
        .min(0)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_BLUES))
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .value_mode(options.BarGaugeValueMode.TEXT)
        .reduce_options(_last())
        .height(height)
        .span(12)
    )
    for value, name in names.items():
        panel.override_by_name(value, [DynamicConfigValue("displayName", name)])
    return panel


def rows(
    title: str, query: str, key: str, heading: str, names: Mapping[str, str], *, height: int = 9
) -> table.Panel:
    """A table with one row for each value of the tag `key`, shown under its name."""
    shown = ValueMap({value: ValueMappingResult(text=name) for value, name in names.items()})
    tidy = DataTransformerConfig(
        id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": {key: heading}}
    )
    return (
        table.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query, result_format="table"))
        .unit("locale")
        .with_transformation(tidy)
        .override_by_name(heading, [DynamicConfigValue("mappings", [shown])])
        .height(height)
        .span(12)
    )
