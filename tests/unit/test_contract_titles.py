"""Titles of signals, set points and faults."""

from __future__ import annotations

from qilu_contract.catalogue.classes import CATALOGUE, OWN
from qilu_contract.catalogue.places import read_table
from qilu_contract.catalogue.titles import titles


def test_everything_in_the_catalogue_has_a_title_in_both_languages_and_nothing_else_has() -> None:
    rows = {(row["kind"], row["class"], row["name"]) for row in read_table("titles.csv")}
    used = set()
    for class_ in (each for name, each in CATALOGUE.items() if name not in OWN):
        for kind, things in (
            ("signal", class_.signals),
            ("set_point", class_.set_points),
            ("fault", class_.faults),
        ):
            for thing in things:
                key = (kind, class_.name, thing.name)
                used.add(key if key in rows else (kind, "", thing.name))
    assert used == rows
    for row in read_table("titles.csv"):
        assert row["title"], row
        assert any("\u4e00" <= letter <= "\u9fff" for letter in row["title_zh"]), row


def test_what_nobody_named_is_called_by_its_name() -> None:
    assert titles("signal", "kiln", "shell_temp") == ("Shell temp", "shell_temp")
    assert titles("signal", "loom", "speed").title == "Weaving speed"
