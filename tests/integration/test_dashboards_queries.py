"""Every query of the dashboards, asked of a real InfluxDB as Grafana asks it."""

import json
from typing import Any

import httpx
import pytest
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.places import CITIES, PROVINCE
from qilu_contract.storage import MEASUREMENTS, Point, line_protocol
from qilu_dashboards.build import build_all

START_MS = 1_760_000_000_000
END_MS = START_MS + 600_000
KINDS = ("infrastructure", "platform", "business", "equipment")
GATEWAYS = ("gateway-a", "gateway-b")
UNIT = "370202-motor-0000001"

BOARDS = [json.loads(text) for text in build_all().values()]
PANELS = [panel for board in BOARDS for panel in board["panels"] if panel.get("targets")]
LOOKUPS = [
    variable for board in BOARDS for variable in board["templating"]["list"] if variable["type"] == "query"
]


def filled(measurement: str, tags: tuple[str, ...], ts_ms: int, value: int) -> Point:
    fields = {
        name: value % 2 == 0 if type_ == "bool" else float(value) if type_ == "float" else value
        for name, type_ in MEASUREMENTS[measurement].fields.items()
    }
    return Point(measurement, tags, ts_ms, fields)


def points() -> list[Point]:
    scopes = [("province", PROVINCE)]
    scopes += [("city", code) for code in CITIES]
    scopes += [("class", name) for name in CATALOGUE]
    scopes += [("kind", kind) for kind in KINDS]
    made = []
    for step in range(60):
        ts_ms = START_MS + step * 10_000
        made += [filled("programme", scope, ts_ms, 100 + step) for scope in scopes]
        made += [filled("pipeline", (gateway,), ts_ms, 1000 + step) for gateway in GATEWAYS]
        for class_ in CATALOGUE:
            made.append(filled(class_, ("370200", "370202", "C31", "370202-e00001", UNIT), ts_ms, step))
    return made


def ask(http: str, database: str, query: str, city: str) -> list[dict[str, Any]]:
    """Series of an answer, after the substitutions that Grafana makes for a range of ten minutes."""
    for name, text in {
        "$timeFilter": f"time >= {START_MS}ms and time <= {END_MS}ms",
        "$__interval": "10s",
        "${city:regex}": city,
        "${class}": "motor",
        "${unit}": UNIT,
        "${signal}": "power_in",
    }.items():
        query = query.replace(name, text)
    assert "$" not in query.replace("$/", ""), f"left over in {query}"
    form = {"db": database, "q": query, "epoch": "ms"}
    answer = httpx.post(f"{http}/query", data=form, timeout=30.0, trust_env=False)
    [result] = answer.json()["results"]
    assert "error" not in result, f"{result['error']}: {query}"
    series: list[dict[str, Any]] = result.get("series", [])
    return series


@pytest.fixture
def store(influxdb: Any) -> Any:
    create = {"q": f'CREATE DATABASE "{influxdb.database}"'}
    httpx.post(f"{influxdb.http}/query", data=create, timeout=30.0, trust_env=False).raise_for_status()
    answer = httpx.post(
        f"{influxdb.http}/write",
        params={"db": influxdb.database, "precision": "ms"},
        content=line_protocol(points()),
        timeout=30.0,
        trust_env=False,
    )
    assert answer.status_code == 204, answer.text
    return influxdb


# As ${city:regex} is written for all cities, for one, and for several.
@pytest.mark.parametrize(("city", "cities"), [(".*", 16), ("370200", 1), ("(370100|370200)", 2)])
def test_every_panel_gets_an_answer(store: Any, city: str, cities: int) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            series = ask(store.http, store.database, target["query"], city)
            assert series, panel["title"]
            for one in series:
                assert one["values"], panel["title"]
                assert all(any(value is not None for value in row[1:]) for row in one["values"])
            if "${city:regex}" in target["query"] and "programme" in target["query"]:
                assert len(series) == cities, panel["title"]


def test_every_variable_gets_choices(store: Any) -> None:
    choices = {
        variable["name"]: ask(store.http, store.database, variable["query"], ".*") for variable in LOOKUPS
    }
    [units] = choices["unit"]
    assert [row[1] for row in units["values"]] == [UNIT]
    [signals] = choices["signal"]
    assert {row[0] for row in signals["values"]} == set(MEASUREMENTS["motor"].fields)


def test_a_gauge_shows_the_newest_count(store: Any) -> None:
    for panel in (panel for panel in PANELS if panel["type"] == "gauge"):
        [series] = ask(store.http, store.database, panel["targets"][0]["query"], ".*")
        assert series["values"][-1][1] == 159


def test_gateways_add_up(store: Any) -> None:
    by_title = {panel["title"]: panel["targets"][0]["query"] for panel in PANELS}
    [accepted] = ask(store.http, store.database, by_title["Accepted 接收"], ".*")
    assert accepted["values"][-1][1] == 2 * 1059
    [lag] = ask(store.http, store.database, by_title["Lag 延迟"], ".*")
    assert lag["values"][-1][1] == 1059
