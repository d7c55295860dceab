"""Layouts: names and types of a birth's aliases, kept once for identical devices, which differ at most in
their first alias."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec
import structlog
from qilu_contract.catalogue.equipment import INFORMATION
from qilu_contract.wire.sparkplug import DataType
from qilu_contract.wire.sparkplug_layouts import Metrics

from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = "CREATE TABLE IF NOT EXISTS layouts (id INTEGER PRIMARY KEY, body BLOB NOT NULL);"
MAX_LAYOUTS = 20_000
"""Maximum number of layouts in memory, about 2 kB each. Births with further layouts are looked up in the
state file."""
MAX_MEANINGS = 65_536
Aliases = dict[int | str, tuple[str, int]]
"""Name and datatype by alias, or by name for a metric without an alias. An empty name marks an alias with
several meanings."""
Layout = tuple[tuple[int | str, str, int], ...]
"""Aliases relative to the first, names and datatypes, in the order of the aliases."""
_MOST_FIRST = 2**62
_decode = msgspec.msgpack.Decoder(Layout).decode


def is_information(name: str | None) -> bool:
    return name is not None and name.startswith(INFORMATION)


def layout_of(aliases: Aliases) -> tuple[Layout, int]:
    """The layout, and the first alias."""
    first = min([alias for alias in aliases if type(alias) is int], default=0)
    if first > _MOST_FIRST:
        first = 0
    steps = [(alias - first if type(alias) is int else alias, *aliases[alias]) for alias in aliases]
    return tuple(sorted(steps, key=_by_alias)), first


def _by_alias(step: tuple[int | str, str, int]) -> tuple[bool, int | str]:
    return type(step[0]) is str, step[0]


class Meanings:
    """Content of a birth, indexed for look-ups."""

    __slots__ = ("aliases", "names", "types")

    def __init__(self, layout: Layout, first: int) -> None:
        self.aliases: Aliases = {
            step + first if type(step) is int else step: (name, datatype) for step, name, datatype in layout
        }
        self.names: dict[int | str, str] = {
            alias: name for alias, (name, _) in self.aliases.items() if name and not is_information(name)
        }
        """Names by alias, for measured signals only."""
        self.types: dict[str, int] = {}
        """Datatype by name; 0 for a name with several datatypes."""
        for name, datatype in self.aliases.values():
            self.types[name] = datatype if self.types.get(name, datatype) == datatype else 0


class Signals(NamedTuple):
    """Signals of readings with the same metrics."""

    names: tuple[str, ...]
    datatypes: tuple[int, ...]
    """Datatypes of the values as received."""


class Layouts:
    """Cache of layouts by number (from 1, valid in this process). In the state file their id is a hash of
    their content."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self._numbers: dict[Layout, int] = {}
        self._layouts: list[Layout] = [()]
        self.ids = [0]
        self._by_id: dict[int, int] = {}
        self._signals: dict[tuple[int, int, Metrics], Signals | None] = {}
        self.meanings = lru_cache(maxsize=1024)(self._meanings)
        """Meanings by layout number and first alias."""

    def number(self, layout: Layout) -> int:
        """The number of a layout; 0 if there are too many."""
        found = self._numbers.get(layout, 0)
        if not found and len(self._layouts) <= MAX_LAYOUTS:
            found = self._numbers[layout] = len(self._layouts)
            self._layouts.append(layout)
            self.ids.append(id_of(layout))
            self._by_id[self.ids[found]] = found
        return found

    def __getitem__(self, number: int) -> Layout:
        return self._layouts[number]

    def find(self, id_: int) -> tuple[int, Layout] | None:
        """Number and layout by its id; None if the state file does not have it. Raises
        sqlite3.OperationalError."""
        number = self._by_id.get(id_)
        if number is not None:
            return number, self._layouts[number]
        row = self._state.read("SELECT body FROM layouts WHERE id = ?", (id_,))
        try:
            if row is not None and isinstance(row[0], bytes):
                layout = _decode(row[0])
                return self.number(layout), layout
        except msgspec.MsgspecError as error:
            log.error("a layout of births in the state file cannot be read", error=str(error))
        return None

    def _meanings(self, number: int, first: int) -> Meanings:
        return Meanings(self._layouts[number], first)

    def signals(self, number: int, offset: int, metrics: Metrics) -> Signals | None:
        """Signals of readings whose first alias is `offset` after the birth's first; None unless all metrics
        are measured signals."""
        key = number, offset, metrics
        if key not in self._signals:
            if len(self._signals) >= MAX_MEANINGS:
                self._signals.clear()
            self._signals[key] = _signals(self._layouts[number], offset, metrics)
        return self._signals[key]


def id_of(layout: Layout) -> int:
    return int.from_bytes(blake2b(encode(layout), digest_size=8).digest(), "little", signed=True)


def encode(layout: Layout) -> bytes:
    return msgspec.msgpack.encode(layout)


def _signals(layout: Layout, offset: int, metrics: Metrics) -> Signals | None:
    by_alias = {step: (name, datatype) for step, name, datatype in layout}
    names, datatypes = [], []
    for step, type_ in zip(metrics.steps, metrics.types, strict=True):
        name, datatype = by_alias.get(offset + step, ("", 0))
        if not name or is_information(name):
            return None
        names.append(name)
        datatypes.append(datatype if type_ == DataType.UNKNOWN else type_)
    return Signals(tuple(names), tuple(datatypes)) if len(set(names)) == len(names) else None
