"""A dashboard per equipment class of the catalogue, about its fleet as a whole."""

from __future__ import annotations

from grafana_foundation_sdk.builders import bargauge, dashboard, timeseries
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.catalogue.classes import EquipmentClass, Signal
from qilu_contract.catalogue.effectiveness import EFFECTIVENESS, STOP_FIELDS, Effectiveness
from qilu_contract.catalogue.key_signals import BIN_FIELDS, KEY_SIGNALS, bin_edges, is_cumulative
from qilu_contract.catalogue.limits import LIMITS, alarm_limits
from qilu_contract.catalogue.titles import titles

from qilu_dashboards.city import ALARM_HEADINGS
from qilu_dashboards.frame import CITY_NAMES, alarm_marks, board, cities, finish, industries
from qilu_dashboards.panels import (
    bars,
    distribution,
    graph,
    industry_bars,
    listing,
    number,
    open_alarms,
    steps_of,
)
from qilu_dashboards.queries import (
    EACH_MINUTE,
    EITHER_PLACE,
    IN_CITY,
    LATELY,
    PLACE,
    Source,
    each_interval,
    fleet,
    in_all,
    summed,
)
from qilu_dashboards.units import unit_of


def uid(class_: EquipmentClass) -> str:
    return f"qilu-class-{class_.name.replace('_', '-')}"


def equipment_class(class_: EquipmentClass) -> Dashboard:
    """Units, key signals with their limits, distributions, meter increases, zones, alarms and the worst
    units."""
    title = f"{class_.title.lower()} {class_.title_zh}"
    made = board(title, uid(class_), f"All units of the class {class_.name}. {class_.title_zh}总览")
    made.with_variable(cities())
    made.with_variable(industries())
    signals = KEY_SIGNALS[class_.name]
    _summary(made, class_)
    made.with_row(dashboard.Row("Key signals of the fleet 关键测点"))
    for signal in signals:
        if not is_cumulative(signal):
            made.with_panel(_band(class_, signal))
    if rule := EFFECTIVENESS.get(class_.name):
        _effectiveness(made, rule)
    meters = [signal for signal in signals if is_cumulative(signal)]
    if meters:
        made.with_row(dashboard.Row("Energy and emissions 能耗与排放"))
        for signal in meters:
            made.with_panel(_added(class_, signal))
    made.with_row(dashboard.Row("Distribution of readings 读数分布"))
    for signal in signals:
        if not is_cumulative(signal):
            made.with_panel(_distribution(class_, signal))
    made.with_panel(_out_of_range(class_))
    if alarm_limits(class_.name):
        _alarms(made, class_)
    return finish(made, alarm_marks(f"{IN_CITY} AND \"class\" = '{class_.name}'"))


def _summary(made: dashboard.Dashboard, class_: EquipmentClass) -> None:
    base = class_.base_signal.name
    made.with_row(dashboard.Row("Fleet 设备总览"))
    units = summed("units", "units", fleet(class_.name, base), fn="max")
    made.with_panel(number("Reporting units 在线设备", units, "locale", every=EACH_MINUTE).no_value("0"))
    readings = summed("n", "readings", fleet(class_.name, base), fn="sum")
    made.with_panel(number("Readings per interval 读数", readings, "locale", every=EACH_MINUTE).no_value("0"))
    counted = Source("programme", f"\"scope\" = 'class' AND \"code\" = '{class_.name}'")
    on_cloud = each_interval({"on cloud": 'last("units_on_cloud")'}, counted)
    made.with_panel(number("Units on cloud, province 全省上云设备", on_cloud, "locale").no_value("0"))
    by_city = (
        f'SELECT last("units") AS "units" FROM "fleet" WHERE "class" = \'{class_.name}\' '
        f'AND "signal" = \'{base}\' AND "level" = \'city\' AND $timeFilter GROUP BY "place"'
    )
    made.with_panel(
        bars(
            "Reporting units by city 各市在线设备", by_city, "$tag_place", CITY_NAMES, height=14
        ).description(LATELY)
    )
    by_industry = (
        f'SELECT last("units") AS "units" FROM "fleet" WHERE "class" = \'{class_.name}\' '
        f'AND "signal" = \'{base}\' AND "level" = \'industry\' AND "place" =~ /^${{industry:regex}}$/ '
        'AND $timeFilter GROUP BY "place"'
    )
    made.with_panel(industry_bars(by_industry, LATELY))


def _band(class_: EquipmentClass, signal: Signal) -> timeseries.Panel:
    columns = {
        "maximum 最高": 'max("max")',
        "mean 均值": 'sum("sum") / sum("n")',
        "minimum 最低": 'min("min")',
    }
    query = each_interval(columns, fleet(class_.name, signal.name))
    limits = [limit for limit in LIMITS[class_.name] if limit.signal == signal.name]
    steps = steps_of(limits) if limits else None
    described = "; ".join(f"{limit.title} {limit.title_zh}: {limit.kind} {limit.limit:g}" for limit in limits)
    panel = graph(
        f"{signal.name} ({signal.unit})",
        query,
        unit_of(signal),
        from_zero=False,
        every=EACH_MINUTE,
        steps=steps,
    )
    return panel.description(described) if described else panel


def _effectiveness(made: dashboard.Dashboard, rule: Effectiveness) -> None:
    """OEE with its three factors, and stops by reason."""
    made.with_row(dashboard.Row("Overall equipment effectiveness 设备综合效率"))
    source = Source("effectiveness", f"\"class\" = '{rule.class_name}' AND {PLACE}")
    ratios = {
        "OEE 设备综合效率": 'sum("good_s") / sum("planned_s")',
        "availability 可用率": 'sum("run_s") / sum("planned_s")',
        "effectiveness 性能效率": 'sum("ideal_s") / sum("run_s")',
        "quality ratio 合格率": 'sum("good_s") / sum("ideal_s")',
    }
    panel = graph("OEE 设备综合效率", each_interval(ratios, source), "percentunit", every=EACH_MINUTE)
    made.with_panel(panel.description("ISO 22400-2. " + " ".join(rule.assumed)))
    fields = STOP_FIELDS[: len(rule.stops)]
    stops = {}
    for field, signal in zip(fields, rule.stops, strict=True):
        found = titles("signal", rule.class_name, signal)
        stops[f"{found.title} {found.title_zh}"] = f'sum("{field}")'
    known = "".join(f' - sum("{field}")' for field in fields)
    stops["Other or unknown 其他或未知"] = f'sum("planned_s") - sum("run_s"){known}'
    made.with_panel(distribution("Stops by reason 停机原因", in_all(stops, source)).unit("s"))


def _added(class_: EquipmentClass, signal: Signal) -> timeseries.Panel:
    """Increase of the meters of a class in each interval."""
    query = summed("sum", f"{class_.title} {class_.title_zh}", fleet(class_.name, signal.name), fn="sum")
    return graph(
        f"{class_.title} {class_.title_zh}: {signal.name} increase 增量 ({signal.unit})",
        query,
        unit_of(signal),
        every=EACH_MINUTE,
    )


def _distribution(class_: EquipmentClass, signal: Signal) -> bargauge.Panel:
    edges = bin_edges(signal)
    columns = {
        f"{low:g} – {high:g}": f'sum("{field}")'
        for field, low, high in zip(BIN_FIELDS, edges[:-1], edges[1:], strict=True)
    }
    query = in_all(columns, fleet(class_.name, signal.name))
    return distribution(f"{signal.name} ({signal.unit})", query)


def _out_of_range(class_: EquipmentClass) -> bargauge.Panel:
    source = Source("fleet", f"\"class\" = '{class_.name}' AND {PLACE}")
    query = in_all({"readings": 'sum("out_of_range")'}, source, "signal")
    panel = bars("Values outside their range 超量程读数", query, "$tag_signal", {}, height=10).span(8)
    return panel.description(
        "Readings with a value outside the range of the sensor. They are stored, and included in the figures "
        "above. The cause is a broken sensor or a wrong unit of measurement."
    )


def _alarms(made: dashboard.Dashboard, class_: EquipmentClass) -> None:
    made.with_row(dashboard.Row("Alarms and worst units 告警与超限设备"))
    of_class = f'FROM "alarm" WHERE "class" = \'{class_.name}\''
    made.with_panel(open_alarms(f"{of_class} AND {IN_CITY} AND $timeFilter").height(9))
    # openGemini finds nothing for `top` with two conditions joined by OR; only one of them ever holds.
    others = '"signal", "worst", "limit", "open"'
    top = f'SELECT top("ratio", "unit", 10) AS "top", {others} {of_class}'
    each = ", ".join(f"({top} AND {place} AND $timeFilter)" for place in EITHER_PLACE)
    worst = f'SELECT "top", "unit", {others} FROM {each} WHERE $timeFilter'
    link = f"/d/qilu-unit-{class_.name.replace('_', '-')}?var-unit=${{__value.text}}&${{__url_time_range}}"
    made.with_panel(
        listing(
            "Worst units 超限最严重设备",
            worst,
            {**ALARM_HEADINGS, "top": ALARM_HEADINGS["ratio"]},
            span=18,
            link=link,
        )
    )
    zones = [limit for limit in LIMITS[class_.name] if limit.signal == "vibration"]
    if zones:
        signal = class_.signal("vibration")
        edges = bin_edges(signal)
        # Bins are fractions of the signal's range; a bin belongs to the zone of its lower edge.
        bounds = [0.0, *(limit.limit for limit in zones), float("inf")]
        columns = {}
        for name, low, high in zip("ABCD", bounds, bounds[1:], strict=False):
            mine = [f for f, edge in zip(BIN_FIELDS, edges, strict=False) if low <= edge < high]
            if mine:
                columns[f"Zone {name} {name}区"] = " + ".join(f'sum("{field}")' for field in mine)
        query = in_all(columns, fleet(class_.name, "vibration"))
        made.with_panel(
            distribution("Readings by vibration zone 振动分区", query).description(
                "Zones A, B, C and D, separated by "
                + ", ".join(f"{limit.limit:g}" for limit in zones)
                + " mm/s rms (ISO 10816-3, N), rounded to a step of the distribution."
            )
        )
