"""The dashboard of one works: the equipment of an enterprise, its energy and emissions, and its alarms."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.catalogue.key_signals import KEY_SIGNALS

from qilu_dashboards.city import ALARM_HEADINGS
from qilu_dashboards.frame import CLASS_NAMES, alarm_marks, board, cities, finish, lookup
from qilu_dashboards.panels import MANY_LINES, bars, graph, listing, open_alarms
from qilu_dashboards.queries import EACH_MINUTE, grown, over_time

UID = "qilu-works"

_METERED = ", ".join(
    f'"{name}"' for name, signals in KEY_SIGNALS.items() if "energy_kWh" in {each.name for each in signals}
)
"""Classes whose units have a meter. A works has few units, so their own series are read."""
_OF_WORKS = f"FROM {_METERED} WHERE \"enterprise\" = '${{enterprise}}' AND $timeFilter"


def works() -> Dashboard:
    """One enterprise, chosen by city and county or entered by its id."""
    made = board(
        "one works 单个企业",
        UID,
        "Equipment, energy and alarms of one enterprise. 单个企业的设备、能耗与告警",
    )
    made.with_variable(cities(all_value=".*"))
    counties = (
        'SHOW TAG VALUES FROM "fleet" WITH KEY = "place" WHERE "level" = \'county\' '
        'AND "city" =~ /^${city:regex}$/'
    )
    made.with_variable(lookup("county", "County 县区", counties))
    enterprises = (
        f'SHOW TAG VALUES FROM {_METERED} WITH KEY = "enterprise" WHERE "county" =~ /^${{county:regex}}$/ '
        "LIMIT 500"
    )
    made.with_variable(lookup("enterprise", "Enterprise 企业", enterprises).allow_custom_value(True))
    _equipment(made)
    _energy(made)
    made.with_row(dashboard.Row("Alarms 告警"))
    alarms = 'FROM "alarm" WHERE "enterprise" = \'${enterprise}\' AND $timeFilter'
    made.with_panel(open_alarms(alarms).height(9))
    columns = '"unit", "class", "signal", "value", "worst", "limit", "duration_s", "open"'
    rows = f"SELECT {columns} {alarms} ORDER BY time DESC LIMIT 50"
    made.with_panel(listing("Latest alarms 最近告警", rows, ALARM_HEADINGS, span=18))
    return finish(made, alarm_marks("\"enterprise\" = '${enterprise}'"))


def _equipment(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Equipment 设备"))
    each = f'(SELECT last("energy_kWh") AS "unit" {_OF_WORKS} GROUP BY "unit")'
    reporting = bars(
        "Units that reported 有上报的设备",
        f'SELECT count("unit") AS "units" FROM {each} WHERE $timeFilter',
        "$m",
        CLASS_NAMES,
    )
    made.with_panel(reporting.no_value("0"))
    headings = {
        "Time": "Time 时间",
        "unit": "Unit 设备",
        "kWh": "Energy, kWh 用电量",
        "kg": "CO₂, kg 二氧化碳",
    }
    used = f'SELECT spread("energy_kWh") AS "kWh", spread("co2_kg") AS "kg" {_OF_WORKS} GROUP BY "unit"'
    made.with_panel(listing("Energy and emissions by unit 各设备能耗与排放", used, headings, span=12))


def _energy(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Energy and CO₂ 能耗与二氧化碳"))
    for field, title, unit in (
        ("energy_kWh", "Energy by class 各类设备能耗 (kWh)", "kwatth"),
        ("co2_kg", "CO₂ by class 各类设备二氧化碳排放 (kg)", "masskg"),
    ):
        counts = f'(SELECT last("{field}") AS "count" {_OF_WORKS}{over_time("unit")})'
        query = f'SELECT sum("each") AS "added" FROM {grown(counts, "unit")} WHERE $timeFilter{over_time()}'
        panel = graph(title, query, unit, alias="$m", names=CLASS_NAMES, every=EACH_MINUTE)
        made.with_panel(panel.max_data_points(MANY_LINES).description("Increase of the meters per interval."))
