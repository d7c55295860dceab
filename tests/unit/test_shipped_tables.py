"""Tables that ship with the packages: each row has a value for each column, and no more."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = [path for path in ROOT.glob("*/qilu_*/**/*.csv") if ".venv" not in path.parts]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.name)
def test_every_row_has_all_columns(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as lines:
        head, *rows = csv.reader(lines)
    assert rows
    assert [row for row in rows if len(row) != len(head)] == []
