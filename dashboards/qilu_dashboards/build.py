"""The dashboards as JSON files for Grafana; `python -m qilu_dashboards.build` writes them."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError

from qilu_dashboards.alerts import ALERTS_FILE, ALERTS_FOLDER, alerts_yaml
from qilu_dashboards.city import city
from qilu_dashboards.energy import energy
from qilu_dashboards.equipment_class import equipment_class
from qilu_dashboards.pipeline import pipeline
from qilu_dashboards.platform import platform
from qilu_dashboards.programme_overview import overview
from qilu_dashboards.security import security
from qilu_dashboards.unit import unit
from qilu_dashboards.works import works

JSON_FOLDER = Path(__file__).parents[1] / "json"
"""Folder beside the package in the repository; an installed package does not have it."""


def checkout_folder() -> Path:
    """`JSON_FOLDER`; raises ConfigError in an installed package, which has no files of dashboards."""
    if not JSON_FOLDER.is_dir():
        raise ConfigError("Only a checkout has files of dashboards: name a folder with `build --to`.")
    return JSON_FOLDER


def build_all() -> dict[str, str]:
    """File contents by file name; every call returns the same bytes."""
    boards = {
        "programme-overview.json": overview(),
        "city.json": city(),
        "energy.json": energy(),
        "pipeline.json": pipeline(),
        "platform.json": platform(),
        "security.json": security(),
        "works.json": works(),
    }
    for name, class_ in CATALOGUE.items():
        boards[f"class-{name.replace('_', '-')}.json"] = equipment_class(class_)
        boards[f"unit-{name.replace('_', '-')}.json"] = unit(class_)
    return {name: _text(board) for name, board in boards.items()}


def _text(board: Dashboard) -> str:
    """JSON of a dashboard, without what the SDK adds and Grafana's own types do not have."""
    content = json.loads(json.dumps(board, cls=JSONEncoder))
    for variable in content["templating"]["list"]:
        if variable["type"] != "interval":
            for name in ("auto", "auto_min", "auto_count"):
                variable.pop(name, None)
    for panel in content["panels"]:
        if panel["type"] == "table":
            panel["options"].pop("footer", None)
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write every dashboard into `folder`, which is created if missing. Raises ConfigError if it cannot be
    created."""
    boards = build_all()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be created: {error.strerror}. Choose another one."
        ) from error
    if folder == JSON_FOLDER:
        for old in folder.glob("*.json"):  # of a class that no longer exists
            old.unlink()
    written = []
    for name, text in boards.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def write_alerts(folder: Path) -> Path:
    """Write the alert rules into `folder`, which is created if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ALERTS_FILE
    path.write_text(alerts_yaml(), encoding="utf-8")
    return path


if __name__ == "__main__":
    write(JSON_FOLDER)
    write_alerts(ALERTS_FOLDER)
