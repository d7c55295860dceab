"""The dashboards that are built are the files that Grafana reads, and they ask for what the schema has."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.key_signals import KEY_SIGNALS
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.security import SECURITY_KINDS
from qilu_contract.storage import HOURLY
from qilu_dashboards.alerts import rules
from qilu_dashboards.build import JSON_FOLDER, build_all, write
from qilu_dashboards.check import problems, queries, unknown_names
from qilu_dashboards.influxql import PROVISIONED
from qilu_dashboards.security import EVENT_NAMES

PROVISIONING = JSON_FOLDER.parent / "provisioning"


def boards() -> list[dict[str, Any]]:
    return [json.loads(text) for text in build_all().values()]


def test_the_files_are_what_the_code_builds(tmp_path: Path) -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in write(tmp_path)}
    kept = {path.name: path.read_text(encoding="utf-8") for path in JSON_FOLDER.glob("*.json")}
    assert written == kept, "run `python -m qilu_dashboards.build`"


def test_each_kind_of_security_event_has_a_name() -> None:
    assert tuple(EVENT_NAMES) == SECURITY_KINDS


def test_the_check_finds_nothing_wrong() -> None:
    assert problems() == []


def test_the_check_says_what_is_old_and_what_belongs_to_nothing(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "city.json").write_text("{}")
    (tmp_path / "gone.json").write_text("{}")
    found = problems(tmp_path)
    assert [problem.split(":")[0] for problem in found] == [
        "city.json is out of date",
        "gone.json is not generated any more",
    ]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ('SELECT last("units_on_clouds") FROM "programme" WHERE $timeFilter', "units_on_clouds"),
        ('SELECT last("units_active") FROM "programme" WHERE "town" = \'x\'', "town"),
        ('SELECT last("accepted") FROM "pipelines"', "pipelines"),
        ('SELECT last("steam_flow") FROM "motor"', "steam_flow"),
        ('SELECT last("sum") FROM "fleet" WHERE "class" = \'motor\' AND "signal" = \'voltage\'', "voltage"),
        ('SELECT last("sum") FROM "fleet" WHERE "level" = \'town\'', "town"),
    ],
)
def test_a_name_that_the_schema_lacks_is_found(query: str, name: str) -> None:
    assert name in unknown_names(query)


def test_a_graph_reads_rows_by_the_minute_or_by_the_hour_and_never_both() -> None:
    """Each query of a measurement with hourly rows compares its step, unless it asks for the newest."""
    for place, query in [pair for board in boards() for pair in queries(board)]:
        read = re.findall(r'FROM "(\w+)"(?: WHERE \$__interval (<|>=) 1h)?', query)
        fine = {name for name, compared in read if compared == "<"}
        assert {name for name, compared in read if compared == ">="} == {name + HOURLY for name in fine}, (
            place
        )
        assert not any(name.endswith(HOURLY) for name, compared in read if not compared), place


def test_every_panel_asks_the_provisioned_data_source_and_has_a_title_and_an_id_of_its_own() -> None:
    text = (PROVISIONING / "datasources" / "influxdb.yaml").read_text(encoding="utf-8")
    [source] = yaml.safe_load(text)["datasources"]
    assert source["uid"] == PROVISIONED
    for board in boards():
        chosen = board["templating"]["list"][0]
        assert (chosen["type"], chosen["query"]) == ("datasource", "influxdb")
        assert chosen["current"]["value"] == PROVISIONED
        panels = board["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["title"]
            for target in panel.get("targets", []):
                assert target["datasource"]["uid"] == f"${{{chosen['name']}}}"
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


def test_a_bar_for_each_core_target_is_full_at_the_target_and_green_when_it_is_reached() -> None:
    [board] = [board for board in boards() if board["uid"] == "qilu-programme"]
    [panel] = [panel for panel in board["panels"] if panel["title"].startswith("Core targets")]
    bars = {
        override["matcher"]["options"]: {each["id"]: each["value"] for each in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    assert len(bars) == len(CORE_TARGETS) == 13
    asked = " ".join(target["query"] for target in panel["targets"])
    for target in CORE_TARGETS.values():
        _, code, field = target.counted_in
        assert re.search(rf"\b{code}\b", asked)
        assert f'last("{field}")' in asked
        shown = bars[f"{code} {field}"]
        assert shown["max"] == target.target
        green = shown["thresholds"]["steps"][-1]["value"]
        assert target.reached(green)
        assert not target.reached(green - 1)


def test_energy_per_product_is_on_the_pages_of_units_that_make_something() -> None:
    made = [board["uid"] for board in boards() if "单位" in json.dumps(board, ensure_ascii=False)]
    assert made == [f"qilu-unit-{name}" for name in ("boiler", "compressor", "cnc", "pump", "pasteuriser")]


def test_uids_are_stable_and_every_title_is_in_two_languages() -> None:
    uids = [board["uid"] for board in boards()]
    assert len(set(uids)) == len(uids)
    for name in CATALOGUE:
        assert f"qilu-class-{name.replace('_', '-')}" in uids
        assert f"qilu-unit-{name.replace('_', '-')}" in uids
    signals = {signal.name for class_ in CATALOGUE.values() for signal in class_.signals}
    for board in boards():
        for panel in board["panels"]:
            title = panel["title"]
            assert any(ord(letter) > 0x4E00 for letter in title) or title.split(" ")[0] in signals, title


def test_links_between_dashboards_lead_somewhere() -> None:
    text = "".join(build_all().values())
    linked = set(re.findall(r"/d/([a-z-]+)", text)) | {rule.dashboard for rule in rules()}
    assert linked <= {board["uid"] for board in boards()}


def test_variables_are_written_so_that_every_version_of_grafana_escapes_them() -> None:
    for board in boards():
        for _, query in queries(board):
            assert not re.search(r"/\^?\$\w", query), query
        unit = [v for v in board["templating"]["list"] if v["name"] == "unit"]
        assert all(not variable.get("includeAll") for variable in unit)


def test_no_panel_over_the_fleet_reads_the_units_series() -> None:
    for board in boards():
        if not board["uid"].startswith(("qilu-unit-", "qilu-works")):  # these have few units
            for place, query in queries(board):
                assert not set(re.findall(r'FROM "([^"]+)"', query)) & CATALOGUE.keys(), place


def test_every_alert_has_a_runbook_and_conditions_that_grafana_can_read() -> None:
    file = PROVISIONING / "alerting" / "rules.yaml"
    [group] = yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    assert len({rule["uid"] for rule in group["rules"]}) == len(group["rules"]) >= 7
    for rule in group["rules"]:
        assert (JSON_FOLDER.parents[1] / rule["annotations"]["runbook"]).is_file()
        assert [part["refId"] for part in rule["data"]] == ["A", "B", "C"]
        assert rule["condition"] == "C"
        assert rule["annotations"]["summary"]
    yaml.safe_load((PROVISIONING / "alerting" / "contact-points.yaml.example").read_text(encoding="utf-8"))


def test_a_class_with_a_meter_gets_panels_of_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    without = tuple(signal for signal in KEY_SIGNALS["boiler"] if signal.name != "energy_kWh")
    monkeypatch.setitem(KEY_SIGNALS, "boiler", without)
    made = build_all()
    assert "energy_kWh increase 增量 (kWh)" in made["class-motor.json"]
    assert "energy_kWh by city" in made["energy.json"]
    assert "energy_kWh" not in made["class-boiler.json"]
