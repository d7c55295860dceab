"""The questions of the command line: JSON, tables, the report page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from qilu_contract.catalogue.claims import CLAIMS, WHY_CLAIMS_DIFFER
from qilu_contract.catalogue.places import CITIES
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_programme.charts import shade, short
from qilu_programme.figures import FIGURES, TABLES
from qilu_programme.months import CHECKPOINT, LABELS
from qilu_programme.report import page
from qilu_programme.runs import Comparison, Ensemble, as_json, compare, run_many, variant
from qilu_programme.scenario import SETS, load_scenario

QILU = Path(sys.executable).parent / "qilu"
_VOID = {"meta", "br"}


def qilu(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [QILU, "programme", *words], capture_output=True, text=True, timeout=300, check=False
    )


@cache
def three_runs() -> Ensemble:
    return run_many(load_scenario(), 3)


class Outline(HTMLParser):
    """Fails on a tag that is closed wrongly; collects what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data")]
        assert tag not in ("script", "link", "img", "iframe")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def test_the_report_is_one_whole_page_that_loads_nothing() -> None:
    text = page(three_runs())
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert outline.loads == []
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text)


def test_the_report_names_every_target_city_and_assumption() -> None:
    text = page(three_runs())
    for target in CORE_TARGETS.values():
        assert target.title in text
    for city in CITIES.values():
        assert city.name_zh in text
    for name in FIGURES:
        assert f"<code>{name}</code>" in text
    tables = {entry.name for entry in files("qilu_programme").joinpath("data").iterdir()}
    assert {f"{name}.csv" for name in TABLES} == tables - {"figures.csv", "report.css"}


def test_runs_go_through_the_parameter_sets_and_the_first_is_the_scenario_as_written() -> None:
    scenario = load_scenario()
    assert variant(scenario, 0) == scenario
    assert set(three_runs().sets) == set(SETS)
    low, high = three_runs().band("enterprises_on_cloud")
    median = three_runs().median("enterprises_on_cloud")
    assert (low <= median).all()
    assert (median <= high).all()


def test_the_json_has_every_month_city_and_target() -> None:
    content = as_json(three_runs())
    assert len(content["months"]) == 63
    assert content["months"][0]["month"] == "2017-10"
    assert content["months"][0]["enterprises_on_cloud"] == 20_000
    assert set(content["months"][-1]["by_city"]) == set(CITIES)
    assert [entry["name"] for entry in content["targets"]] == list(CORE_TARGETS)
    assert all({"target", "value", "reached", "band", "chance"} <= set(entry) for entry in content["targets"])


def test_a_scenario_compared_with_itself_shows_no_difference() -> None:
    ensemble = three_runs()
    same = Comparison(ensemble, ensemble)
    assert not np.any(same.difference("units_on_cloud"))
    assert not np.any(same.difference_by_city())


def test_progress_is_told_for_each_run_of_both_scenarios() -> None:
    told: list[tuple[int, int]] = []
    compare(load_scenario(), load_scenario("slow"), 1, lambda done, of: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("value", "said"), [(3, "3"), (9_500, "9,500"), (12_345, "12.3k"), (10_602_178, "10.6M")]
)
def test_short_numbers(value: float, said: str) -> None:
    assert short(value) == said


def test_shades_go_from_nothing_to_most() -> None:
    assert [shade(value, 60) for value in (0, 1, 11, 30, 59, 60)] == [0, 1, 2, 3, 6, 6]


def test_the_command_line_runs_and_counts() -> None:
    done = qilu("run", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    last = content["months"][-1]
    assert (
        sum(city["enterprises_on_cloud"] for city in last["by_city"].values()) == last["enterprises_on_cloud"]
    )
    assert all(entry["reached"] for entry in content["targets"])


def test_a_wrong_scenario_exits_with_2_and_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: default\nname: mine\nhazard: -1\n", encoding="utf-8")
    done = qilu("run", str(path))
    assert done.returncode == 2
    assert "line 3: 'hazard' must be a number from 0 to 10, not '-1'." in done.stderr
    assert "Traceback" not in done.stderr


def test_a_report_without_a_folder_is_refused_before_it_runs(tmp_path: Path) -> None:
    done = qilu("report", "--out", str(tmp_path / "no" / "report.html"))
    assert done.returncode == 2
    assert "make it first" in done.stderr


def test_the_report_shows_both_counting_rules_and_the_gap() -> None:
    """The press conference of October 2020 reports 30 million connected units."""
    text = page(three_runs())
    counted = three_runs().median("units_on_cloud")[CHECKPOINT]
    (claim,) = (each for each in CLAIMS if each.name == "units_on_cloud")
    assert (claim.month, claim.value) == (LABELS[CHECKPOINT], 30_000_000)
    row = next(row for row in text.split("<tr>") if "30,000,000" in row)
    assert f"<b>{counted:,.0f}</b>" in row
    assert f">{30_000_000 / counted:,.1f}<" in row
    assert WHY_CLAIMS_DIFFER in text


def test_every_claim_is_about_a_target_and_a_month_of_the_programme() -> None:
    assert list(CLAIMS) == sorted(CLAIMS, key=lambda claim: claim.month)
    for claim in CLAIMS:
        assert claim.name in CORE_TARGETS
        assert claim.month in LABELS
        assert (claim.mark, bool(claim.source)) == ("S", True)
