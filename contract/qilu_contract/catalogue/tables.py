"""Tables that ship with a package, as CSV files in its folder `data`."""

from __future__ import annotations

import csv
from importlib.resources import files


def read_table(name: str, package: str = "qilu_contract") -> list[dict[str, str]]:
    """The rows of `data/NAME` in `package`, by column name."""
    text = files(package).joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
