"""The page on Sparkplug lists every assertion id once, as its source has it, with tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from sparkplug_ids import ASSERTIONS, BEGIN, CONCERNED, END, PAGE, STATUSES, rows, tables

TESTS = Path(__file__).parents[1]


def functions_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        f"{file.name}::{node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_assertion_is_listed_once() -> None:
    ids = [row.id for row in rows()]
    assert len(set(ids)) == len(ids) == ASSERTIONS
    assert all(each.startswith("tck-id-") for each in ids)


def test_a_row_names_tests_or_says_why_not() -> None:
    for row in rows():
        assert row.concerns in CONCERNED, row.id
        assert row.status in STATUSES, row.id
        assert bool(row.tests) == (row.status in ("tested", "partly tested")), row.id
        assert bool(row.note) == (row.status != "tested"), row.id


def test_every_named_test_exists() -> None:
    files = {test.partition("::")[0] for row in rows() for test in row.tests}
    there = {test for file in TESTS.rglob("test_*.py") if file.name in files for test in functions_of(file)}
    assert not {test for row in rows() for test in row.tests} - there


def test_the_page_has_the_tables_of_the_source() -> None:
    # After a change to the source: .venv/bin/python tests/sparkplug_ids.py --write
    text = PAGE.read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0] == tables()
