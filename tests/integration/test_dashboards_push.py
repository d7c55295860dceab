"""`qilu dashboards push` against the shipped fake of Grafana's HTTP API. It does not show
how a real Grafana draws the dashboards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_grafana import FakeGrafana
from qilu_dashboards.build import build_all
from qilu_dashboards.influxql import PROVISIONED

QILU = Path(sys.executable).parent / "qilu"
STORE = ("--store", "influxdb://influxdb:8086/qilu")


@pytest.fixture
def grafana() -> Iterator[FakeGrafana]:
    with FakeGrafana("secret") as fake:
        yield fake


def push(grafana: FakeGrafana, *words: str, token: str = "secret") -> subprocess.CompletedProcess[str]:
    command = [QILU, "dashboards", "push", "--url", grafana.url, *words]
    environment = {**os.environ, "QILU_GRAFANA_TOKEN": token, "QILU_INFLUX_TOKEN": "store-token"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


def done(said: subprocess.CompletedProcess[str]) -> list[str]:
    assert said.returncode == 0, said.stderr
    return [json.loads(line)["done"] for line in said.stdout.splitlines()]


def test_everything_is_made_once_and_then_left_alone(grafana: FakeGrafana) -> None:
    count = len(build_all()) + 2
    assert done(push(grafana, *STORE, "--dry-run", "--json")) == ["created"] * count
    assert grafana.writes == []
    assert done(push(grafana, *STORE, "--json")) == ["created"] * count
    made = {uid: kept["dashboard"] for uid, kept in grafana.boards.items()}
    for text in build_all().values():
        board = json.loads(text)
        assert {k: v for k, v in made[board["uid"]].items() if k not in ("id", "version")} == board
    source = grafana.sources[PROVISIONED]
    assert source["url"] == "http://influxdb:8086"
    assert source["secureJsonData"] == {"httpHeaderValue1": "Token store-token"}
    before = list(grafana.writes)
    assert done(push(grafana, "--json")) == ["unchanged"] * count
    assert grafana.writes == before


def test_a_dry_run_shows_the_difference_and_a_push_removes_it(grafana: FakeGrafana) -> None:
    push(grafana, *STORE)
    grafana.boards["qilu-city"]["dashboard"]["title"] = "Changed by hand"
    said = push(grafana, "--dry-run")
    assert '- "title": "Changed by hand"' in said.stdout
    assert grafana.boards["qilu-city"]["dashboard"]["title"] == "Changed by hand"
    assert done(push(grafana, "--json")).count("updated") == 1
    assert grafana.boards["qilu-city"]["dashboard"]["title"] == "Clouds in Qilu: city"
    assert grafana.boards["qilu-city"]["dashboard"]["version"] == 2


def test_mistakes_are_told_in_one_sentence(grafana: FakeGrafana) -> None:
    unknown = push(grafana, *STORE, token="wrong")
    assert (unknown.returncode, grafana.writes) == (2, [])
    assert "QILU_GRAFANA_TOKEN" in unknown.stderr
    no_store = push(grafana)
    assert no_store.returncode == 2
    assert "--store" in no_store.stderr
    push(grafana, *STORE)
    # Another dashboard has taken the name: 412.
    kept = grafana.boards.pop("qilu-city")
    kept["dashboard"]["uid"] = "somebody-elses"
    grafana.boards["somebody-elses"] = kept
    clash = push(grafana)
    assert clash.returncode == 1
    assert "--dry-run" in clash.stderr
    away = FakeGrafana("secret")
    away._server.close()
    gone = push(away, *STORE)
    assert gone.returncode == 1
    for said in (unknown, no_store, clash, gone):
        assert len(said.stderr.strip().splitlines()) == 1, said.stderr
        assert "Traceback" not in said.stderr
