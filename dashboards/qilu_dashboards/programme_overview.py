"""The dashboard "Clouds in Qilu: programme overview"."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.places import CITIES
from qilu_contract.targets import TARGETS

from qilu_dashboards.influxql import DATA_SOURCE
from qilu_dashboards.panels import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    against_target,
    bars,
    course,
    number,
    rows,
    thresholds,
)

TITLE = "Clouds in Qilu: programme overview"
UID = "qilu-programme"

_CITY_NAMES = {city.code: f"{city.name} {city.name_zh}" for city in CITIES.values()}
_CLASS_NAMES = {name: f"{class_.title} {class_.title_zh}" for name, class_ in CATALOGUE.items()}
_KIND_NAMES = {
    "infrastructure": "Infrastructure 基础设施",
    "platform": "Platform systems 平台系统",
    "business": "Business capabilities 业务能力",
    "equipment": "Equipment 设备",
}

_CODE = '"code"'
_GATEWAY = '"gateway"'
_PROVINCE = 'FROM "programme" WHERE "scope" = \'province\' AND $timeFilter'
_CITY = 'FROM "programme" WHERE "scope" = \'city\' AND "code" =~ /^${city:regex}$/ AND $timeFilter'


def overview() -> Dashboard:
    """Counts against the targets, growth, cities, classes, the pipeline's health, and one unit's readings."""
    board = (
        dashboard.Dashboard(TITLE)
        .uid(UID)
        .description("Enterprises and equipment of Shandong on cloud. 云行齐鲁：企业与设备上云总览")
        .tags(["clouds-in-qilu"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
    )
    _variables(board)
    _targets(board)
    _growth(board)
    _cities(board)
    _classes(board)
    _pipeline(board)
    _unit(board)
    built = board.build()
    # Grafana numbers panels without an id anew at every load, and links to a panel would change.
    for number_, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number_
    return built


def _over_time(*tags: str) -> str:
    """One value an interval, for each value of `tags`."""
    return f"GROUP BY {', '.join(['time($__interval)', *tags])} fill(none)"


def _choice(name: str, label: str, names: dict[str, str]) -> dashboard.CustomVariable:
    values = ", ".join(f"{text} : {value}" for value, text in names.items())
    return dashboard.CustomVariable(name).label(label).values(values)


def _lookup(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATA_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _variables(board: dashboard.Dashboard) -> None:
    every = VariableOption(selected=True, text=["All"], value=["$__all"])
    board.with_variable(
        _choice("city", "City 城市", _CITY_NAMES).multi(True).include_all(True).all_value(".*").current(every)
    )
    motor = VariableOption(selected=True, text=_CLASS_NAMES["motor"], value="motor")
    board.with_variable(_choice("class", "Class 设备类别", _CLASS_NAMES).current(motor))
    # A province has too many units for a list; any other id can be typed in.
    units = 'SHOW TAG VALUES FROM "${class}" WITH KEY = "unit" WHERE "city" =~ /^${city:regex}$/ LIMIT 200'
    board.with_variable(_lookup("unit", "Unit 设备", units).allow_custom_value(True))
    board.with_variable(_lookup("signal", "Signal 测点", 'SHOW FIELD KEYS FROM "${class}"'))


def _targets(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("Against the targets 目标完成情况"))
    for name, target in TARGETS.items():
        query = f'SELECT last("{name}") AS "{target.title}" {_PROVINCE} {_over_time()}'
        board.with_panel(against_target(f"{target.title} {target.title_zh}", target.target, query))


def _growth(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("Growth 增长"))
    units = ", ".join(
        [
            'last("units_registered") AS "registered 已注册"',
            'last("units_on_cloud") AS "on cloud 已上云"',
            'last("units_on_cloud_current") AS "on cloud now 在云"',
            'last("units_active") AS "active 活跃"',
        ]
    )
    board.with_panel(course("Units 设备", f"SELECT {units} {_PROVINCE} {_over_time()}", "locale"))
    enterprises = ", ".join(
        [
            'last("enterprises_registered") AS "registered 已注册"',
            'last("enterprises_on_cloud") AS "on cloud 已上云"',
            'last("enterprises_on_cloud_current") AS "on cloud now 在云"',
        ]
    )
    board.with_panel(course("Enterprises 企业", f"SELECT {enterprises} {_PROVINCE} {_over_time()}", "locale"))


def _cities(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("By city 分城市"))
    newest = f'SELECT last("units_on_cloud") {_CITY} GROUP BY "code"'
    board.with_panel(bars("Units on cloud by city 各市上云设备", newest, "$tag_code", _CITY_NAMES, height=14))
    columns = ", ".join(
        [
            'last("units_on_cloud") AS "Units on cloud 上云设备"',
            'last("units_registered") AS "registered 已注册"',
            'last("enterprises_on_cloud") AS "Enterprises on cloud 上云企业"',
            'last("enterprises_registered") AS "registered enterprises 注册企业"',
        ]
    )
    query = f'SELECT {columns} {_CITY} GROUP BY "code"'
    board.with_panel(rows("Cities 十六市", query, "code", "City 城市", _CITY_NAMES, height=14))
    over_time = f'SELECT last("units_on_cloud") {_CITY} {_over_time(_CODE)}'
    growth = course(
        "Units on cloud by city, over time 各市增长",
        over_time,
        "locale",
        alias="$tag_code",
        names=_CITY_NAMES,
    )
    board.with_panel(growth.span(24))


def _classes(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("By class and kind of action 分设备类别与上云类型"))
    by_class = (
        'SELECT last("units_on_cloud") FROM "programme" '
        'WHERE "scope" = \'class\' AND $timeFilter GROUP BY "code"'
    )
    board.with_panel(bars("Units on cloud by class 各类设备", by_class, "$tag_code", _CLASS_NAMES, height=7))
    by_kind = (
        'SELECT last("contracts_current") FROM "programme" '
        'WHERE "scope" = \'kind\' AND $timeFilter GROUP BY "code"'
    )
    board.with_panel(
        bars("Cloud contracts by kind of action 上云合同", by_kind, "$tag_code", _KIND_NAMES, height=7)
    )


def _pipeline(board: dashboard.Dashboard) -> None:
    source = 'FROM "pipeline" WHERE $timeFilter'
    board.with_row(dashboard.Row("Pipeline 数据管道"))

    # Gateways add up; one value each is taken first, for they do not write at the same moment.
    def together(fn: str, field: str, name: str) -> str:
        each = f'SELECT last("{field}") AS "each" {source} {_over_time(_GATEWAY)}'
        return f'SELECT {fn}("each") AS "{name}" FROM ({each}) WHERE $timeFilter {_over_time()}'  # noqa: S608 (InfluxQL, of constants)

    board.with_panel(
        number("Accepted 接收", together("sum", "accepted_per_s", "accepted"), "suffix: readings/s")
    )
    board.with_panel(number("Stored 存储", together("sum", "stored_per_s", "stored"), "suffix: readings/s"))
    late = thresholds((None, GREEN), (5_000, ORANGE), (60_000, RED))
    board.with_panel(number("Lag 延迟", together("max", "lag_ms", "lag"), "ms", steps=late))
    dead = thresholds((None, GREEN), (1, ORANGE))
    board.with_panel(
        number("Dead letters 死信", together("sum", "dead_lettered", "dead letters"), "locale", steps=dead)
    )
    busy = thresholds((None, BLUE), (50_000, ORANGE))
    board.with_panel(
        number("In flight 处理中", together("sum", "in_flight", "in flight"), "locale", steps=busy)
    )
    board.with_panel(
        number("Redelivered 重投", together("sum", "redelivered", "redelivered"), "locale", steps=dead)
    )
    rates = (
        f'SELECT mean("accepted_per_s") AS "accepted 接收", mean("stored_per_s") AS "stored 存储" '
        f"{source} {_over_time(_GATEWAY)}"
    )
    board.with_panel(course("Readings a second 每秒读数", rates, "short", alias="$tag_gateway $col"))
    lag = f'SELECT max("lag_ms") AS "lag" {source} {_over_time(_GATEWAY)}'
    board.with_panel(course("Lag, from sample to store 延迟", lag, "ms", alias="$tag_gateway $col"))
    totals = (
        'SELECT last("accepted") AS "accepted 接收", last("stored") AS "stored 存储", '
        f'last("dead_lettered") AS "dead letters 死信" {source} {_over_time(_GATEWAY)}'
    )
    board.with_panel(course("Counted since the start 累计", totals, "locale", alias="$tag_gateway $col"))
    births = (
        'SELECT last("births") AS "births 上线", last("rebirth_requests") AS "rebirth requests 重新上线请求" '
        f"{source} {_over_time(_GATEWAY)}"
    )
    board.with_panel(
        course("Births and rebirth requests 设备上线", births, "locale", alias="$tag_gateway $col")
    )


def _unit(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("One unit 单台设备"))
    one = 'FROM "${class}" WHERE "unit" = \'${unit}\' AND $timeFilter'
    chosen = f'SELECT last("${{signal}}") AS "${{signal}}" {one} {_over_time()}'
    board.with_panel(course("${unit}: ${signal}", chosen, "short", from_zero=False).span(16))
    newest = f"SELECT last(*) {one}"
    board.with_panel(number("${unit}: newest values 最新值", newest, "short", span=8).height(9))
