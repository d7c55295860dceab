"""The dashboards that are built are the files that Grafana reads, and they ask for what the schema has."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.storage import MEASUREMENTS
from qilu_contract.targets import TARGETS
from qilu_dashboards.build import JSON_FOLDER, build_all, write
from qilu_dashboards.influxql import DATA_SOURCE

PROVISIONING = JSON_FOLDER.parent / "provisioning"


def boards() -> list[dict[str, Any]]:
    return [json.loads(text) for text in build_all().values()]


def queries(board: dict[str, Any]) -> list[str]:
    panels = [target["query"] for panel in board["panels"] for target in panel.get("targets", [])]
    return panels + [
        variable["query"] for variable in board["templating"]["list"] if variable["type"] == "query"
    ]


def unknown_names(query: str) -> set[str]:
    """What a query names that its measurement lacks, for every class and signal it may be asked for."""
    found: set[str] = set()
    classes = CATALOGUE.values() if "${class}" in query else [CATALOGUE["motor"]]
    for class_ in classes:
        signals = class_.signals if "${signal}" in query else class_.signals[:1]
        for asked, signal in product([query.replace("${class}", class_.name)], signals):
            text = asked.replace("${signal}", signal.name)
            sources = re.findall(r'FROM "([^"]+)"', text)
            assert sources, f"no measurement in {text}"
            known = set(sources) | set(re.findall(r'AS "([^"]+)"', text)) - {signal.name}
            for source in sources:
                if source not in MEASUREMENTS:
                    found.add(source)
                    continue
                known |= {*MEASUREMENTS[source].tags, *MEASUREMENTS[source].fields}
            found |= set(re.findall(r'"([^"]+)"', text)) - known
    return found


def test_the_files_are_what_the_code_builds(tmp_path: Path) -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in write(tmp_path)}
    kept = {path.name: path.read_text(encoding="utf-8") for path in JSON_FOLDER.glob("*.json")}
    assert written == kept, "run `python -m qilu_dashboards.build`"


def test_every_query_names_only_what_the_schema_has() -> None:
    for board in boards():
        assert queries(board)
        for query in queries(board):
            assert not unknown_names(query), query


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ('SELECT last("units_on_clouds") FROM "programme" WHERE $timeFilter', "units_on_clouds"),
        ('SELECT last("units_active") FROM "programme" WHERE "town" = \'x\'', "town"),
        ('SELECT last("accepted") FROM "pipelines"', "pipelines"),
        ('SELECT last("steam_flow") FROM "${class}"', "steam_flow"),
    ],
)
def test_a_name_that_the_schema_lacks_is_found(query: str, name: str) -> None:
    assert name in unknown_names(query)


def test_every_panel_asks_the_provisioned_data_source_and_has_a_title_and_an_id_of_its_own() -> None:
    text = (PROVISIONING / "datasources" / "influxdb.yaml").read_text(encoding="utf-8")
    [source] = yaml.safe_load(text)["datasources"]
    assert source["uid"] == DATA_SOURCE.uid
    for board in boards():
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["title"]
            for target in panel.get("targets", []):
                assert target["datasource"]["uid"] == source["uid"]
                assert target["rawQuery"]


def test_panels_do_not_overlap() -> None:
    for board in boards():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            assert max(x for x, _ in cells) < 24
            taken |= cells


def test_a_gauge_for_each_target_is_full_at_the_target() -> None:
    [board] = boards()
    gauges = [panel for panel in board["panels"] if panel["type"] == "gauge"]
    assert [panel["fieldConfig"]["defaults"]["max"] for panel in gauges] == [
        target.target for target in TARGETS.values()
    ]
