"""Checks the dashboards without a database: every file is what the code generates, and every query refers
to a measurement and field that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.key_signals import KEY_SIGNALS, LEVELS
from qilu_contract.storage import HOURLY, MEASUREMENTS

from qilu_dashboards.alerts import ALERTS_FILE, ALERTS_FOLDER, alerts_yaml, rules
from qilu_dashboards.build import JSON_FOLDER, build_all


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Location and text of each query of a dashboard."""
    title = board["title"]
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield f"{title}, panel {panel['title']}", target["query"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"{title}, variable {variable['name']}", variable["query"]
    for annotation in board["annotations"].get("list", []):
        yield f"{title}, annotation {annotation['name']}", annotation["query"]


def unknown_names(query: str) -> set[str]:
    """Names in a query that no service writes: measurements, tags, fields, and signals of a class."""
    lists = re.findall(r'FROM ("[^"]+"(?:, "[^"]+")*)', query)
    sources = {name for names in lists for name in re.findall(r'"([^"]+)"', names)}
    if not sources:
        return {"no measurement"}
    found = sources - MEASUREMENTS.keys()
    known = sources | set(re.findall(r'AS "([^"]+)"', query))
    for source in sources - found:
        known |= {*MEASUREMENTS[source].tags, *MEASUREMENTS[source].fields}
    found |= set(re.findall(r'"([^"]+)"', query)) - known
    # Tag values that the schema defines.
    classes = set(re.findall(r"\"class\" = '([^']+)'", query))
    found |= classes - CATALOGUE.keys()
    found |= set(re.findall(r"\"level\" = '([^']+)'", query)) - set(LEVELS)
    if not sources.isdisjoint({"fleet", "fleet" + HOURLY}):
        rolled = {signal.name for name in classes & KEY_SIGNALS.keys() for signal in KEY_SIGNALS[name]} or {
            signal.name for signals in KEY_SIGNALS.values() for signal in signals
        }
        found |= set(re.findall(r"\"signal\" = '([^']+)'", query)) - rolled
    return found


def problems(folder: Path = JSON_FOLDER, alerts: Path = ALERTS_FOLDER) -> list[str]:
    """One sentence per problem."""
    made = build_all()
    found = []
    kept = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    for name in sorted(made.keys() | kept.keys()):
        if made.get(name) != kept.get(name):
            what = (
                "is missing"
                if name not in kept
                else "is not generated any more"
                if name not in made
                else "is out of date"
            )
            found.append(f"{name} {what}: run `qilu dashboards build`.")
    rules_file = alerts / ALERTS_FILE
    if not rules_file.is_file() or rules_file.read_text(encoding="utf-8") != alerts_yaml():
        found.append(f"{ALERTS_FILE} is out of date: run `qilu dashboards build`.")
    asked = [place for text in made.values() for place in queries(json.loads(text))]
    asked += [(f"alert {rule.title}", rule.query) for rule in rules()]
    for place, query in asked:
        unknown = unknown_names(query)
        if unknown:
            found.append(f"{place}: no service writes {', '.join(sorted(unknown))}: {query}")
    return found
