"""Panels that the dashboards use, one function per kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    stat,
    statetimeline,
    table,
    text,
    timeseries,
)
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
from qilu_contract.catalogue.limits import Limit
from qilu_contract.catalogue.targets import Target as CoreTarget

from qilu_dashboards.asking import POINTS
from qilu_dashboards.frame import INDUSTRY_NAMES
from qilu_dashboards.influxql import DATA_SOURCE, Target

EVERY = "10s"
"""The shortest step of a graph, so that every interval holds at least one roll-up point."""

MANY_LINES = 200
"""Points of a graph with many lines or of frequently written data, and of sums over the time range: it reads
hourly rows from a week on, instead of 25 days."""

BLUE, GREEN, ORANGE, RED = "#3274d9", "#37872d", "#ff9830", "#e02f44"


def thresholds(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Colours by lower bound; the first bound is None."""
    made = [Threshold(value, color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


def against_targets(
    title: str, targets: Sequence[CoreTarget], queries: Sequence[tuple[str, str]]
) -> bargauge.Panel:
    """A bar per target, which is full at the target, and green once it is reached (`>` targets: exceeded).
    `queries` are pairs of query and alias; a series has the name "<code> <field>"."""
    panel = _gauge(title).description("A full bar is the target for 2022.").span(24).height(14)
    for place, (query, alias) in enumerate(queries):
        panel.with_target(Target(query, alias, ref_id="ABCDEFGH"[place]))
    for target in targets:
        _, code, field = target.counted_in
        steps = thresholds((None, BLUE), (target.first, GREEN)).build()
        properties = [
            DynamicConfigValue("displayName", f"{target.title} {target.title_zh} · {target.wanted}"),
            DynamicConfigValue("max", target.target),
            DynamicConfigValue("thresholds", steps),
            DynamicConfigValue("color", {"mode": "thresholds"}),
        ]
        panel.override_by_name(f"{code} {field}", properties)
    return panel


def number(
    title: str,
    query: str,
    unit: str,
    *,
    span: int = 4,
    steps: dashboard.ThresholdsConfig | None = None,
    every: str = EVERY,
) -> stat.Panel:
    """The newest value in large type, with its graph in the background."""
    return (
        stat.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query))
        .unit(unit)
        .thresholds(steps or thresholds((None, BLUE)))
        .color_mode(options.BigValueColorMode.VALUE)
        .graph_mode(options.BigValueGraphMode.AREA)
        .max_data_points(POINTS)
        .interval(every)
        .reduce_options(_last())
        .height(4)
        .span(span)
    )


def graph(
    title: str,
    query: str,
    unit: str,
    *,
    alias: str = "$col",
    names: Mapping[str, str] | None = None,
    from_zero: bool = True,
    every: str = EVERY,
    steps: dashboard.ThresholdsConfig | None = None,
) -> timeseries.Panel:
    """Values over time. `names` maps the tag value of a series to its display name."""
    panel = (
        timeseries.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query, alias))
        .unit(unit)
        .max_data_points(POINTS)
        .interval(every)
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
    if steps is not None:
        panel.thresholds(steps).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.LINE)
        )
    for value, name in (names or {}).items():
        panel.override_by_name(value, [DynamicConfigValue("displayName", name)])
    return panel


def bars(title: str, query: str, alias: str, names: Mapping[str, str], *, height: int = 9) -> bargauge.Panel:
    """One bar per series. `names` maps the tag value of a series to its display name."""
    panel = _gauge(title, Target(query, alias)).height(height).span(12)
    for value, name in names.items():
        panel.override_by_name(value, [DynamicConfigValue("displayName", name)])
    return panel


def industry_bars(query: str, described: str) -> bargauge.Panel:
    """Reporting units, one bar per industry. The series of the query have the tag `place`."""
    title = "Reporting units by industry 各行业在线设备"
    return bars(title, query, "$tag_place", INDUSTRY_NAMES, height=14).description(described)


def rows(
    title: str, query: str, key: str, heading: str, names: Mapping[str, str], *, height: int = 9
) -> table.Panel:
    """A table with one row per value of the tag `key`. `names` maps these values to display names."""
    shown = ValueMap({value: ValueMappingResult(text=name) for value, name in names.items()})
    tidy = DataTransformerConfig(
        id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": {key: heading}}
    )
    return (
        table.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query, result_format="table"))
        .max_data_points(MANY_LINES)
        .unit("locale")
        .with_transformation(tidy)
        .override_by_name(heading, [DynamicConfigValue("mappings", [shown])])
        .height(height)
        .span(12)
    )


def steps_of(limits: Sequence[Limit]) -> dashboard.ThresholdsConfig:
    """Colours by a signal's limits: normal, note, warning, alarm."""
    colors = {"note": BLUE, "warning": ORANGE, "alarm": RED}
    above = sorted((limit for limit in limits if limit.kind == "above"), key=lambda limit: limit.limit)
    below = sorted((limit for limit in limits if limit.kind == "below"), key=lambda limit: limit.limit)
    steps: list[tuple[float | None, str]] = [(None, colors[below[0].level] if below else GREEN)]
    steps += [(limit.limit, GREEN) for limit in below]
    return thresholds(*steps, *((limit.limit, colors[limit.level]) for limit in above))


def states(title: str, query: str, unit: str, steps: dashboard.ThresholdsConfig) -> statetimeline.Panel:
    """A bar over time, coloured by the thresholds of the value."""
    return (
        statetimeline.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query))
        .unit(unit)
        .thresholds(steps)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .interval("1m")
        .show_value(options.VisibilityMode.NEVER)
        .merge_values(True)
        .height(5)
        .span(24)
    )


def distribution(title: str, query: str, *, span: int = 8) -> bargauge.Panel:
    """One bar per column of the single row of the answer: the number of readings in each step."""
    return _gauge(title, Target(query)).height(10).span(span)


def _gauge(title: str, *targets: Target) -> bargauge.Panel:
    """Horizontal bars that show counts."""
    panel = bargauge.Panel().title(title).datasource(DATA_SOURCE)
    for target in targets:
        panel.with_target(target)
    return (
        panel.unit("locale")
        .min(0)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.CONTINUOUS_BLUES))
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .value_mode(options.BarGaugeValueMode.TEXT)
        .max_data_points(MANY_LINES)
        .reduce_options(_last())
    )


def open_alarms(source: str) -> stat.Panel:
    """Number of open alarms; `source` is the query from its FROM on."""
    well = thresholds((None, GREEN), (1, RED))
    query = f'SELECT sum("open") AS "open" {source}'
    return (
        number("Open alarms 未解除告警", query, "locale", span=6, steps=well)
        .description("Open alarms that began in the time range.")
        .no_value("0")
    )


def listing(
    title: str, query: str, names: Mapping[str, str], *, span: int = 24, link: str | None = None
) -> table.Panel:
    """A table of the rows of the answer. `names` maps columns to headings; `link` is the URL of a unit's
    cell."""
    tidy = DataTransformerConfig(id_val="organize", options={"renameByName": dict(names)})
    panel = (
        table.Panel()
        .title(title)
        .datasource(DATA_SOURCE)
        .with_target(Target(query, result_format="table"))
        .with_transformation(tidy)
        .height(9)
        .span(span)
    )
    if link is not None:
        target = {"title": "This unit 该设备", "url": link}
        panel.override_by_name(names["unit"], [DynamicConfigValue("links", [target])])
    return panel


def note(text_: str, *, height: int = 3, span: int = 24) -> text.Panel:
    """A text panel."""
    return text.Panel().title("About 说明").content(text_).height(height).span(span)
