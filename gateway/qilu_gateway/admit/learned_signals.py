"""Signals of generic units: what each unit has sent so far, and what the platform does not know yet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

import msgspec
from qilu_contract.catalogue.generic import MAX_NAMES, MAX_UNIT_SIGNALS


class LearnedSignal(msgspec.Struct, frozen=True):
    """A signal of a unit; `measured_in` is its unit of measurement, empty where no birth has given one."""

    unit: str
    name: str
    measured_in: str


class LearnedSignals:
    """In memory: after a start, the platform's answer about a unit says what it has sent before."""

    def __init__(self) -> None:
        self._of: dict[str, set[str]] = {}
        self._names: set[str] = set()
        self._news: dict[tuple[str, str], str] = {}

    def accept(self, unit: str, name: str) -> str:
        """Learn a signal of a unit. Returns why it is not accepted; empty when it is."""
        known = self._of.setdefault(unit, set())
        if name in known:
            return ""
        if len(known) >= MAX_UNIT_SIGNALS:
            return f"{unit} has {MAX_UNIT_SIGNALS} signals already, the most that a generic device may have"
        if name not in self._names and len(self._names) >= MAX_NAMES:
            return f"there are {MAX_NAMES} names of signals already: use one that another device uses"
        known.add(name)
        self._names.add(name)
        self._news[unit, name] = ""
        return ""

    def measured(self, unit: str, name: str, measured_in: str) -> None:
        """Note the unit of measurement that a birth gives for an accepted signal."""
        if name in self._of.get(unit, ()):
            self._news[unit, name] = measured_in

    def confirm(self, unit: str, names: Collection[str]) -> None:
        """Take over what the platform knows of a unit. A signal that it does not know is reported
        again: it may have been restored from a backup."""
        known = self._of.setdefault(unit, set())
        for name in known.difference(names):
            self._news.setdefault((unit, name), "")
        known.update(names)
        self._names.update(names)

    def take_news(self, most: int) -> list[LearnedSignal]:
        """Remove and return signals that are not reported yet."""
        keys = list(islice(self._news, most))
        return [LearnedSignal(*key, self._news.pop(key)) for key in keys]

    def put_back(self, news: Sequence[LearnedSignal]) -> None:
        """These could not be reported."""
        for each in news:
            self._news.setdefault((each.unit, each.name), each.measured_in)
