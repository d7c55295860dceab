"""The table of docs/sparkplug.md: every assertion id of Sparkplug 3.0, and the test that checks it.

    .venv/bin/python tests/sparkplug_ids.py            # prints the table
    .venv/bin/python tests/sparkplug_ids.py --write    # puts it into the page

The source is `tests/sparkplug_ids.csv`. `tests/unit/test_sparkplug_ids.py` checks that the page has the same
rows, and that every test exists.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
SOURCE = TESTS / "sparkplug_ids.csv"
PAGE = TESTS.parent / "docs" / "sparkplug.md"
BEGIN, END = "<!-- made by tests/sparkplug_ids.py -->\n", "<!-- end of what is made -->\n"
ASSERTIONS = 299
"""Assertion ids in the specification 3.0.0."""
STATUSES = ("tested", "partly tested", "not covered", "does not apply")
CONCERNED = ("edge node", "host application", "payload", "broker")


class Row(NamedTuple):
    id: str
    concerns: str
    """One of `CONCERNED`."""
    status: str
    """One of `STATUSES`."""
    tests: tuple[str, ...]
    """`file::function`; the names of test files are unique."""
    note: str
    """The reason, or the part that is missing; empty for what is tested."""

    def line(self) -> str:
        by = [f"`{test}`" for test in self.tests]
        reason = [self.note] if self.note else []
        return f"| `{self.id}` | {self.concerns} | {self.status} | {'<br>'.join(by + reason)} |\n"


def rows() -> list[Row]:
    with SOURCE.open(encoding="utf-8", newline="") as source:
        return [
            Row(row["id"], row["concerns"], row["status"], tuple(row["tests"].split()), row["note"])
            for row in csv.DictReader(source)
        ]


def counts(of: list[Row]) -> str:
    """How many rows have each status, by whom they concern."""
    found = Counter((row.concerns, row.status) for row in of)
    text = f"| concerns | ids | {' | '.join(STATUSES)} |\n|---|{'---:|' * (1 + len(STATUSES))}\n"
    for concerned in (*CONCERNED, "all"):
        each = [
            sum(n for (whom, what), n in found.items() if what == status and concerned in (whom, "all"))
            for status in STATUSES
        ]
        text += f"| {concerned} | {sum(each)} | {' | '.join(map(str, each))} |\n"
    return text


def tables() -> str:
    """The text between the marks of the page."""
    of = rows()
    head = "| id | concerns | status | test or reason |\n|---|---|---|---|\n"
    return f"\n## Counts\n\n{counts(of)}\n## Every id\n\n{head}{''.join(row.line() for row in of)}\n"


def main() -> None:
    if "--write" not in sys.argv[1:]:
        sys.stdout.write(tables())
        return
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{tables()}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
