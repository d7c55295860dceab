"""The dashboard of one or more cities."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import Dashboard, VariableOption
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES

from qilu_dashboards.frame import (
    CITY_NAMES,
    CLASS_NAMES,
    COUNTY_NAMES,
    MILESTONES,
    alarm_marks,
    board,
    choice,
    classes,
    finish,
    lookup,
    several,
)
from qilu_dashboards.panels import (
    MANY_LINES,
    bars,
    graph,
    listing,
    number,
    open_alarms,
)
from qilu_dashboards.queries import (
    CITY_COUNTS,
    EACH_MINUTE,
    IN_CITY,
    LATELY,
    OF_CLASS,
    PLACE,
    Source,
    each_interval,
    newest,
    summed,
)

UID = "qilu-city"

_COUNTY = '"level" = \'county\' AND "city" =~ /^${city:regex}$/ AND "place" =~ /^${county:regex}$/'
_BASES = "|".join(sorted({class_.base_signal.name for class_ in CATALOGUE.values()}))
"""Base signals of all classes. Every reading holds the base signal, so these rows count each unit once."""


def city() -> Dashboard:
    """Counts of the chosen cities, reporting units by class and county, and alarms."""
    made = board("city", UID, "One or more cities of the programme. 各市上云情况", since="now-1h")
    first = next(iter(CITIES))
    chosen = VariableOption(selected=True, text=CITY_NAMES[first], value=first)
    made.with_variable(choice("city", "City 城市", CITY_NAMES).multi(True).current(chosen))
    counties = (
        'SHOW TAG VALUES FROM "fleet" WITH KEY = "place" '
        'WHERE "level" = \'county\' AND "city" =~ /^${city:regex}$/'
    )
    made.with_variable(several(lookup("county", "County 县区", counties)))
    made.with_variable(classes())
    _counts(made)
    _equipment(made)
    _alarms(made)
    return finish(made, MILESTONES, alarm_marks(f"{IN_CITY} AND {OF_CLASS}"))


def _counts(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Programme 上云进展"))
    for field, title in {
        "enterprises_on_cloud": "Enterprises on cloud 上云企业",
        "enterprises_registered": "Enterprises registered 已登记企业",
        "units_on_cloud": "Units on cloud 上云设备",
        "units_registered": "Units registered 已登记设备",
    }.items():
        made.with_panel(number(title, summed(field, title, CITY_COUNTS), "locale", span=6))
    grown = each_interval({"units": 'last("units_on_cloud")'}, CITY_COUNTS, "code")
    made.with_panel(
        graph("Units on cloud 上云设备", grown, "locale", alias="$tag_code", names=CITY_NAMES).span(24)
    )


def _equipment(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Reporting equipment 在线设备"))
    source = Source("fleet", f'{PLACE} AND {OF_CLASS} AND "signal" =~ /^({_BASES})$/')
    by_class = summed("units", "units", source, "class", fn="max")
    made.with_panel(
        graph(
            "Reporting units by class 各类在线设备",
            by_class,
            "locale",
            alias="$tag_class",
            names=CLASS_NAMES,
            every=EACH_MINUTE,
        )
        .max_data_points(MANY_LINES)
        .description("Number of different units that reported within one minute.")
    )
    in_counties = Source("fleet", f'{_COUNTY} AND {OF_CLASS} AND "signal" =~ /^({_BASES})$/')
    by_county = newest("units", "units", in_counties, "place")
    made.with_panel(
        bars("Reporting units by county 各县区在线设备", by_county, "$tag_place", COUNTY_NAMES).description(
            LATELY
        )
    )


def _alarms(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Alarms 告警"))
    source = f'FROM "alarm" WHERE {IN_CITY} AND {OF_CLASS} AND $timeFilter'
    made.with_panel(open_alarms(source))
    new = f'SELECT count("open") AS "new" {source} GROUP BY "class"'
    made.with_panel(
        bars("New alarms by class 各类新增告警", new, "$tag_class", CLASS_NAMES)
        .no_value("0")
        .span(18)
        .height(4)
    )
    rows = (
        'SELECT "unit", "class", "signal", "value", "worst", "limit", "duration_s", "open" '
        f"{source} ORDER BY time DESC LIMIT 50"
    )
    made.with_panel(listing("Latest alarms 最近告警", rows, ALARM_HEADINGS))


ALARM_HEADINGS = {
    "Time": "Start 开始时间",
    "unit": "Unit 设备",
    "class": "Class 类别",
    "signal": "Signal 测点",
    "value": "Value at start 起始值",
    "worst": "Worst value 极值",
    "limit": "Limit 限值",
    "duration_s": "Duration, s 持续时间",
    "ratio": "Worst / limit 超限倍数",
    "open": "Open 未解除",
}
