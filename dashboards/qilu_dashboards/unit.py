"""A dashboard per class that shows one unit: every signal with its limits, and its alarms."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, timeseries
from grafana_foundation_sdk.models.common import BigValueGraphMode
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.catalogue.classes import EquipmentClass, Signal
from qilu_contract.catalogue.limits import LIMITS, Limit
from qilu_contract.catalogue.titles import titles
from qilu_contract.storage import BORN

from qilu_dashboards.city import ALARM_HEADINGS
from qilu_dashboards.frame import alarm_marks, board, cities, finish, industries, lookup
from qilu_dashboards.panels import GREEN, graph, listing, number, states, steps_of, thresholds
from qilu_dashboards.products import Product, product_of
from qilu_dashboards.queries import OF_INDUSTRY, over_time
from qilu_dashboards.units import unit_of


def uid(class_: EquipmentClass) -> str:
    return f"qilu-unit-{class_.name.replace('_', '-')}"


def title_of(class_: EquipmentClass, signal: Signal) -> str:
    """The signal's name in both languages."""
    title, title_zh = titles("signal", class_.name, signal.name)
    return f"{title} {title_zh}"


def unit(class_: EquipmentClass) -> Dashboard:
    """The user chooses the unit by city, county and enterprise, or enters its id."""
    made = board(
        f"one {class_.title.lower()} 单台{class_.title_zh}",
        uid(class_),
        f"One unit of the class {class_.name}, with all its signals. 单台{class_.title_zh}",
    )
    _variables(made, class_)
    one = f'FROM "{class_.name}" WHERE "unit" = \'${{unit}}\' AND $timeFilter'
    made.with_row(dashboard.Row("Now 当前"))
    _birth(made, class_)
    for signal in class_.signals:
        limits = _limits(class_, signal)
        steps = steps_of(limits) if limits else thresholds((None, GREEN))
        query = f'SELECT last("{signal.name}") AS "{signal.name}" {one}'
        made.with_panel(number(title_of(class_, signal), query, unit_of(signal), steps=steps))
    made.with_row(dashboard.Row("State 状态"))
    base = class_.base_signal
    readings = f'SELECT count("{base.name}") AS "readings 读数" {one}{over_time()}'
    made.with_panel(states("Data 数据", readings, "short", thresholds((None, GREEN))))
    for signal in class_.signals:
        limits = _limits(class_, signal)
        if limits:
            worst = "max" if limits[-1].kind == "above" else "min"
            query = f'SELECT {worst}("{signal.name}") AS "{signal.name}" {one}{over_time()}'
            title = f"{title_of(class_, signal)}: {limits[-1].title} {limits[-1].title_zh}"
            made.with_panel(states(title, query, unit_of(signal), steps_of(limits)))
    made.with_row(dashboard.Row("Signals 测点"))
    for signal in class_.signals:
        made.with_panel(_graph(class_, signal, one))
    if (product := product_of(class_)) is not None:
        made.with_panel(_per_product(product, one))
    made.with_row(dashboard.Row("Alarms 告警"))
    rows = (
        'SELECT "signal", "value", "worst", "limit", "duration_s", "open" FROM "alarm" '
        "WHERE \"unit\" = '${unit}' AND $timeFilter ORDER BY time DESC LIMIT 50"
    )
    made.with_panel(listing("Alarms of this unit 该设备告警", rows, ALARM_HEADINGS))
    return finish(made, alarm_marks("\"unit\" = '${unit}'"))


def _birth(made: dashboard.Dashboard, class_: EquipmentClass) -> None:
    """The last birth at any time, also outside the time range: the store finds the last value of a series
    at once."""
    query = f'SELECT last("{BORN}") AS "born" FROM "{class_.name}" WHERE "unit" = \'${{unit}}\''
    for title, unit in (
        ("Last birth 最近上线", "dateTimeAsLocal"),
        ("Time since last birth 距最近上线", "dateTimeFromNow"),
    ):
        panel = number(title, query, unit).graph_mode(BigValueGraphMode.NONE)
        panel.no_value("no Sparkplug birth 无上线报文").description(
            "The time of the newest Sparkplug birth (DBIRTH), which the edge node sends after a start, a new "
            "connection or a rebirth request. Units that publish plain JSON have none. "
            "以 JSON 上报的设备没有上线报文。"
        )
        made.with_panel(panel)


def _limits(class_: EquipmentClass, signal: Signal) -> list[Limit]:
    return [limit for limit in LIMITS[class_.name] if limit.signal == signal.name]


def _variables(made: dashboard.Dashboard, class_: EquipmentClass) -> None:
    """Single choices that depend on each other. Only cities and industries have "All", which adds no
    condition: "All" of a million units would read the index of every series."""
    made.with_variable(cities(all_value=".*"))
    counties = (
        'SHOW TAG VALUES FROM "fleet" WITH KEY = "place" WHERE "level" = \'county\' '
        f'AND "class" = \'{class_.name}\' AND "city" =~ /^${{city:regex}}$/'
    )
    made.with_variable(lookup("county", "County 县区", counties))
    made.with_variable(industries())
    # Users can enter values beyond the first 500.
    of = f'SHOW TAG VALUES FROM "{class_.name}" WITH KEY'
    enterprises = f'{of} = "enterprise" WHERE "county" =~ /^${{county:regex}}$/ AND {OF_INDUSTRY} LIMIT 500'
    made.with_variable(lookup("enterprise", "Enterprise 企业", enterprises).allow_custom_value(True))
    units = f'{of} = "unit" WHERE "enterprise" =~ /^${{enterprise:regex}}$/ LIMIT 500'
    made.with_variable(lookup("unit", "Unit 设备", units).allow_custom_value(True))


def _per_product(product: Product, one: str) -> timeseries.Panel:
    ratio = f'spread("energy_kWh") / {product.amount}'
    title = f"Energy per {product.unit} of {product.title} 单位{product.title_zh}能耗"
    title = title.replace("part of part", "part")
    query = f'SELECT {ratio} AS "energy 能耗" {one}{over_time()}'
    panel = graph(f"{title} (kWh/{product.unit})", query, f"suffix: kWh/{product.unit}", every="10m")
    return panel.description("Increase of the meter in an interval over what was made in it.")


def _graph(class_: EquipmentClass, signal: Signal, one: str) -> timeseries.Panel:
    fn = "max" if signal.type == "bool" else "mean"
    column = f'{fn}("{signal.name}")' if signal.type != "bool" else f'last("{signal.name}")'
    query = f'SELECT {column} AS "{signal.name}" {one}{over_time()}'
    limits = _limits(class_, signal)
    panel = graph(
        f"{title_of(class_, signal)} ({signal.unit})",
        query,
        unit_of(signal),
        from_zero=False,
        every=f"{signal.interval_s}s",
        steps=steps_of(limits) if limits else None,
    )
    return panel.description(f"Range {signal.low:g} to {signal.high:g}. Mark {signal.mark}: {signal.source}")
