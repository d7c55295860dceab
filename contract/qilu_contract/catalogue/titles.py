"""Titles of signals, set points and faults in English and Chinese (`data/titles.csv`)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from qilu_contract.catalogue.tables import read_table

Kind = Literal["signal", "set_point", "fault"]


class Titles(NamedTuple):
    title: str
    title_zh: str


_TITLES = {
    (row["kind"], row["class"], row["name"]): Titles(row["title"], row["title_zh"])
    for row in read_table("titles.csv")
}


def titles(kind: Kind, class_name: str, name: str) -> Titles:
    """A class's own title, else that of the name in every class; the name itself where nobody gave it one, as
    with the user's own classes."""
    plain = name.replace("_", " ").capitalize()
    return _TITLES.get((kind, class_name, name)) or _TITLES.get((kind, "", name)) or Titles(plain, name)
