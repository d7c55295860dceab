"""The dashboards as the JSON that Grafana reads: `python -m qilu_dashboards.build` writes it."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from qilu_dashboards.programme_overview import overview

JSON_FOLDER = Path(__file__).parents[1] / "json"
"""Beside the package in the repository; an installed package has none."""


def build_all() -> dict[str, str]:
    """File names and contents: the same bytes at every call."""
    boards = {"programme-overview.json": overview()}
    return {
        name: json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, board in boards.items()
    }


def write(folder: Path) -> list[Path]:
    """Write every dashboard into `folder`, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in build_all().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    write(JSON_FOLDER)
