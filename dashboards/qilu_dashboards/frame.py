"""Common parts of the dashboards: name, tags, links to the others, variables, annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES, COUNTIES, INDUSTRIES, PROVINCE

from qilu_dashboards.influxql import DATA_SOURCE, PROVISIONED

TAG = "clouds-in-qilu"
PREFIX = "Clouds in Qilu"

CITY_NAMES = {city.code: f"{city.name} {city.name_zh}" for city in CITIES.values()}
COUNTY_NAMES = {county.code: f"{county.name} {county.name_zh}" for county in COUNTIES.values()}
INDUSTRY_NAMES = {code: f"{industry.name} {industry.name_zh}" for code, industry in INDUSTRIES.items()}
CLASS_NAMES = {name: f"{class_.title} {class_.title_zh}" for name, class_ in CATALOGUE.items()}
KIND_NAMES = {
    "infrastructure": "Infrastructure 基础设施上云",
    "platform": "Platform systems 平台系统上云",
    "business": "Business capabilities 业务应用上云",
    "equipment": "Equipment 设备上云",
}

VOUCHER_NAMES = {
    f"{level} {column}": f"{level.capitalize()} {level_zh}: {column} {column_zh}"
    for level, level_zh in (("province", "省级"), ("city", "市级"), ("county", "县级"))
    for column, column_zh in (("granted", "已发放"), ("redeemed", "已兑付"), ("clawed back", "已追回"))
}

Variable = TypeVar("Variable", dashboard.CustomVariable, dashboard.QueryVariable)

EVERY = VariableOption(selected=True, text=["All"], value=["$__all"])


@dataclass(frozen=True, slots=True)
class Annotation:
    """A raw InfluxQL query whose points are marked on every graph. `text` and `tags` name columns of the
    answer. Depending on its version, Grafana reads the query from the annotation or from its target."""

    name: str
    query: str
    color: str
    text: str
    tags: str

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "datasource": DATA_SOURCE,
            "enable": True,
            "hide": False,
            "iconColor": self.color,
            "query": self.query,
            "rawQuery": True,
            "textColumn": self.text,
            "tagsColumn": self.tags,
            "target": {
                "refId": "Anno",
                "datasource": DATA_SOURCE,
                "query": self.query,
                "rawQuery": True,
                "textColumn": self.text,
                "tagsColumn": self.tags,
            },
        }


MILESTONES = Annotation(
    name="Milestones 里程碑",
    query='SELECT "reached", "counted" FROM "milestone" WHERE $timeFilter',
    color="#37872d",
    text="reached",
    tags="counted",
)


def alarm_marks(where: str) -> Annotation:
    """Starts of alarms: the newest 200, because a province may have more than a graph can show."""
    return Annotation(
        name="Alarms 告警",
        query=f'SELECT "value", "unit", "signal" FROM "alarm" WHERE {where} AND $timeFilter '
        "ORDER BY time DESC LIMIT 200",
        color="#e02f44",
        text="unit",
        tags="signal",
    )


def board(title: str, uid: str, description: str, *, since: str = "now-6h") -> dashboard.Dashboard:
    """An empty dashboard with the common links."""
    everywhere = (
        dashboard.DashboardLink("Clouds in Qilu 云行齐鲁")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(True)
        .keep_time(True)
        .include_vars(False)
    )
    return (
        dashboard.Dashboard(f"{PREFIX}: {title}")
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time(since, "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(everywhere)
        .with_variable(
            dashboard.DatasourceVariable("source")
            .label("Data source 数据源")
            .type("influxdb")
            .current(VariableOption(selected=True, text="InfluxDB", value=PROVISIONED))
        )
    )


def finish(made: dashboard.Dashboard, *annotations: Annotation) -> Dashboard:
    """Build the dashboard and number its panels. Grafana gives panels without an id a new number at every
    load, which would change links to a panel."""
    built = made.build()
    for number_, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number_
    if annotations:
        built.annotations.list_val = list(annotations)  # type: ignore[arg-type]  # encoded by its own to_json
    return built


def choice(name: str, label: str, names: Mapping[str, str]) -> dashboard.CustomVariable:
    # A comma separates choices, a colon the text of a choice from its value.
    shown = {value: text.replace(",", " ·").replace(":", "") for value, text in names.items()}
    values = ", ".join(f"{text} : {value}" for value, text in shown.items())
    return dashboard.CustomVariable(name).label(label).values(values)


def lookup(name: str, label: str, query: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATA_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def cities(all_value: str = PROVINCE) -> dashboard.CustomVariable:
    """A variable for the 16 cities. Its "All" is the province's code for roll-ups of the province, and
    `.*` for cities or units."""
    return several(choice("city", "City 城市", CITY_NAMES), all_value)


def industries() -> dashboard.CustomVariable:
    return several(choice("industry", "Industry 行业", INDUSTRY_NAMES))


def classes() -> dashboard.CustomVariable:
    return several(choice("class", "Class 设备类型", CLASS_NAMES))


def several(made: Variable, all_value: str = ".*") -> Variable:
    """Allow any number of choices, with "All" as the default."""
    return made.multi(True).include_all(True).all_value(all_value).current(EVERY)
