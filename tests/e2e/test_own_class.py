"""An equipment class of a user's own, from its YAML file to the boards: `qilu up` as a process of its own on
real Mosquitto, InfluxDB and PostgreSQL."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from conftest import Influx
from qilu_contract.storage import BORN

QILU = Path(sys.executable).parent / "qilu"
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
KILN, WORKS = EXAMPLES / "kiln.yaml", EXAMPLES / "kiln-works.yaml"


def qilu(*words: object) -> subprocess.CompletedProcess[str]:
    command = [QILU, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def ask(influxdb: Influx, query: str) -> list[dict[str, Any]]:
    """The series of the answer, after Grafana's substitutions."""
    now_ms = int(time.time() * 1000)
    around = f"time >= {now_ms - 7_200_000}ms and time <= {now_ms + 7_200_000}ms"
    text = query.replace("$timeFilter", around).replace("$__interval", "60s")
    unit = "370100-kiln-0000001"
    if "${unit}" in text:
        [tagged] = ask(influxdb, 'SHOW TAG VALUES FROM "kiln" WITH KEY = "unit"')
        unit = tagged["values"][0][1]
    text = re.sub(r"\$\{\w+:regex\}", ".*", text.replace("${unit}", unit))
    form = {"db": influxdb.database, "q": text, "epoch": "ms"}
    answer = httpx.post(f"{influxdb.http}/query", data=form, timeout=60.0, trust_env=False)
    [result] = answer.json()["results"]
    assert "error" not in result, f"{result['error']}: {text}"
    series: list[dict[str, Any]] = result.get("series", [])
    return series


def test_a_class_from_a_file_is_registered_counted_stored_verified_and_drawn(
    mosquitto_program: str, influxdb: Influx, postgres_url: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    state, file = tmp_path / "state", tmp_path / "report.json"
    run = qilu(
        *("up", "--state", state, "--broker", "mosquitto", "--store", influxdb.url, "--db", postgres_url),
        *("--port", free_port(), "--mqtt-port", free_port(), "--classes", KILN, "--scenario", WORKS),
        *("--speed", 120, "--for", "10m", "--report", file),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report = json.loads(file.read_text())
    assert (report["lost"], report["duplicates"], report["dead_lettered"]) == (0, 0, 0)
    assert report["units_on_cloud"] == report["units_registered"] == 60

    # The run's manifest holds the class: nothing else says what a kiln is.
    said = qilu("verify", "--run", state / "devices", "--store", influxdb.url, "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    verdict = json.loads(said.stdout)
    assert verdict["expected"] == verdict["stored"] == report["stored"]
    assert verdict["lost"] == verdict["altered"] == verdict["unexpected"] == 0

    types = dict(ask(influxdb, 'SHOW FIELD KEYS FROM "kiln"')[0]["values"])
    assert (types.pop("bricks_lost"), types.pop("burner_on")) == ("integer", "boolean")
    assert types.pop(BORN) == "integer"
    assert set(types.values()) == {"float"}

    # Boards of the class, in a folder of the user's, with what is there left alone.
    boards = tmp_path / "boards"
    boards.mkdir()
    (boards / "my-own.json").write_text("{}")
    built = qilu("dashboards", "build", "--classes", KILN, "--to", boards)
    assert built.returncode == 0, built.stderr
    assert (boards / "my-own.json").read_text() == "{}"
    kilns = 0
    for name in ("class-kiln.json", "unit-kiln.json"):
        board = json.loads((boards / name).read_text(encoding="utf-8"))
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                series = ask(influxdb, target["query"])
                if 'FROM "alarm"' in target["query"]:  # the class has no limits
                    continue
                values = [value for one in series for row in one["values"] for value in row[1:]]
                assert any(value is not None for value in values), (name, panel["title"])
                if "province" in panel["title"]:
                    kilns = max(value for value in values if value is not None)
    [tagged] = ask(influxdb, 'SHOW TAG VALUES FROM "kiln" WITH KEY = "unit"')
    assert kilns == len(tagged["values"]) > 10


def test_the_repositorys_dashboards_stay_as_they_are() -> None:
    said = qilu("dashboards", "build", "--classes", KILN)
    assert said.returncode == 2
    assert "give another folder with --to" in said.stderr
