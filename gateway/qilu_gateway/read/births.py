"""The alias tables of births: which name and type an alias stands for, per edge node and per device.

A table takes effect at once, and is durable before its birth is acknowledged. It stays valid across restarts
of the gateway, until the next birth replaces it or a death closes it. A table is closed when its `session`
is not the edge node's: the death of a node closes all of its tables by adding one to a single number.

Devices alike differ by their first alias at most: their tables share one layout, and of each admitted unit
three numbers are kept, for ever. Others' tables are kept as they are.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from qilu_contract.columns import Ints, Rows, grown

from qilu_gateway.admit.units import Units
from qilu_gateway.read.edge_nodes import EdgeNode, EdgeNodes, SessionRow
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = """
CREATE TABLE IF NOT EXISTS births (
  county TEXT NOT NULL,
  node TEXT NOT NULL,
  device TEXT NOT NULL,
  aliases BLOB NOT NULL,
  redefined_ms INTEGER NOT NULL,
  PRIMARY KEY (county, node, device)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
  county TEXT NOT NULL,
  node TEXT NOT NULL,
  device TEXT NOT NULL,
  session INTEGER NOT NULL,
  bd_seq INTEGER,
  PRIMARY KEY (county, node, device)
) WITHOUT ROWID;
"""
DEAD = -1
"""The session of a device that has died: no edge node has it."""
AMBIGUOUS_MS = 3600 * 1000
"""How long after an alias got another meaning a redelivered message is not decoded by guess."""
HISTORY = "~"
"""Before the county of what came as history: its births and aliases are its own."""
TOGETHER = 500
"""Tables that one query reads."""

INFORMATION = (
    *("bdSeq", "Node Control/", "Device Control/", "Node Info/", "Device Info/", "Properties/"),
    "Command/",
)
"""Metrics that describe a node or device instead of measuring something."""

Key = tuple[str, str, str]
"""County, node, device (empty for the node's own)."""
Aliases = dict[int | str, tuple[str, int]]
"""Name and datatype by alias, or by name for a metric that has no alias. An empty name: the birth gave the
alias several meanings."""


def is_information(name: str | None) -> bool:
    return name is not None and name.startswith(INFORMATION)


class Meanings:
    """What a birth says, in the ways in which it is asked for."""

    __slots__ = ("aliases", "names", "types")

    def __init__(self, aliases: Aliases) -> None:
        self.aliases = aliases
        self.names: dict[int | str, str] = {
            alias: name for alias, (name, _) in aliases.items() if name and not is_information(name)
        }
        """Of the aliases that stand for something measured."""
        self.types: dict[str, int] = {}
        """Datatype by name; 0 for a name to which the birth gives several."""
        for name, datatype in aliases.values():
            self.types[name] = datatype if self.types.get(name, datatype) == datatype else 0


Layout = tuple[tuple[int | str, str, int], ...]
"""Aliases less the first of them, names and datatypes."""


def layout_of(aliases: Aliases) -> tuple[Layout, int]:
    """The layout, and the first alias."""
    numbers = [alias for alias in aliases if type(alias) is int]
    first = min(numbers, default=0)
    if len(numbers) == len(aliases):
        return tuple([(alias - first, *meaning) for alias, meaning in aliases.items()]), first  # type: ignore[operator]
    return (
        tuple(
            [(alias - first if type(alias) is int else alias, *meaning) for alias, meaning in aliases.items()]
        ),
        first,
    )


@lru_cache(maxsize=1024)
def _meanings(layout: Layout, first: int) -> Meanings:
    return Meanings(
        {alias + first if type(alias) is int else alias: (name, datatype) for alias, name, datatype in layout}
    )


@dataclass(slots=True)
class BirthTable:
    key: Key
    meanings: Meanings
    session: int = 0
    redefined_ms: int = 0
    """When a birth gave an alias another meaning than the birth before it; 0 for never."""
    ambiguous: bool = False
    """The meaning changed shortly before this process started, and no birth has come since: a message that
    an earlier process did not acknowledge may mean either.
    """
    said_ms: int | None = None
    """The birth's own time, as long as this is the birth that is being stored."""

    @property
    def aliases(self) -> Aliases:
        return self.meanings.aliases

    @property
    def names(self) -> dict[int | str, str]:
        return self.meanings.names

    @property
    def types(self) -> dict[str, int]:
        return self.meanings.types


class Layouts:
    """Layouts by number, from 1."""

    def __init__(self) -> None:
        self._numbers: dict[Layout, int] = {}
        self._layouts: list[Layout] = [()]

    def number(self, layout: Layout) -> int:
        found = self._numbers.setdefault(layout, len(self._layouts))
        if found == len(self._layouts):
            self._layouts.append(layout)
        return found

    def __getitem__(self, number: int) -> Layout:
        return self._layouts[number]


class Durable(NamedTuple):
    """Tables of units that are durable, by the units' numbers."""

    layouts: NDArray[np.int32]
    """0: not looked for yet; -1: there is none, or it is ambiguous."""
    firsts: Ints
    sessions: NDArray[np.int32]
    nodes: Rows
    """Numbers of their edge nodes."""


class _Saved(NamedTuple):
    """A row of the state file."""

    device: str
    aliases: Aliases
    redefined_ms: int
    session: int


_decode_aliases = msgspec.msgpack.Decoder(Aliases).decode


class Births:
    """Answers at once. What is not durable yet is kept apart from what is."""

    def __init__(self, state: StateFile, units: Units | None = None) -> None:
        self._state = state
        self._units = units if units is not None else Units()
        self.nodes = EdgeNodes(state)
        self.layouts = Layouts()
        self._tables: dict[Key, BirthTable] = {}
        """Of edge nodes, and of devices that are no admitted units."""
        self._unsaved: dict[Key, BirthTable] = {}
        empty = np.zeros(0, dtype=np.int32)
        self._durable = {
            False: Durable(empty, np.zeros(0, dtype=np.int64), empty, empty),
            True: Durable(empty, np.zeros(0, dtype=np.int64), empty, empty),
        }
        """Whether it is history: those of the present apart from those."""
        self._odd: dict[Key, BirthTable] = {}
        """Of units, but ambiguous, or redefined."""
        self._started_ms = time.time_ns() // 1_000_000

    def node(self, county: str, name: str) -> EdgeNode:
        """The edge node as its births and deaths left it; a new one when nothing is known of it."""
        return self.nodes.find(county, name)

    def learn(self, key: Key, aliases: Aliases, said_ms: int | None = None, session: int = 0) -> BirthTable:
        """A birth's table, in effect from now on; `saved` or `forget` must follow."""
        table = BirthTable(key, _meanings(*layout_of(aliases)), session, said_ms=said_ms)
        old = self.find(key)
        if old is not None:
            table.redefined_ms = old.redefined_ms
            if old.meanings is not table.meanings and any(
                old.aliases.get(alias, meaning) != meaning for alias, meaning in aliases.items()
            ):
                table.redefined_ms = time.time_ns() // 1_000_000
        self._unsaved[key] = table
        return table

    def find(self, key: Key) -> BirthTable | None:
        table = self._unsaved.get(key) or self._tables.get(key) or self._odd.get(key)
        if table is not None:
            return table
        number = self._number(key)
        if number is not None:
            durable = self._of(key[0].startswith(HISTORY))
            layout = int(durable.layouts[number])
            if layout > 0:
                meanings = _meanings(self.layouts[layout], int(durable.firsts[number]))
                return BirthTable(key, meanings, int(durable.sessions[number]))
            if layout < 0:
                return None
        for saved in self._load(key[0], key[1], [key[2]]):
            table = self._table(key[0], key[1], saved)
            self._keep(table)
        return table

    def saved(self, table: BirthTable) -> None:
        """The table is durable now."""
        self._keep(table)
        if self._unsaved.get(table.key) is table:
            del self._unsaved[table.key]

    def forget(self, table: BirthTable) -> None:
        """The birth was refused: what was known before is valid again."""
        if self._unsaved.get(table.key) is table:
            del self._unsaved[table.key]

    def died(self, table: BirthTable) -> None:
        """The device of this table, which `find` gave, is dead."""
        table.session = DEAD
        number = self._number(table.key)
        if number is not None:
            self._of(table.key[0].startswith(HISTORY)).sessions[number] = DEAD

    def is_unsaved(self, key: Key) -> bool:
        return key in self._unsaved

    def devices(self, county: str, node: str) -> list[str]:
        """The devices of an edge node whose births are durable."""
        row = self._state.read(
            "SELECT group_concat(device) FROM births WHERE county = ? AND node = ? AND device <> ''",
            (county, node),
        )
        return str(row[0]).split(",") if row is not None and row[0] is not None else []

    # -- by number

    def durable(self, rows: Rows, *, history: bool) -> Durable:
        """Of these units, in this order. Raises sqlite3.OperationalError."""
        durable = self._of(history)
        unknown = rows[durable.layouts[rows] == 0]
        if len(unknown):
            self._look_for(np.unique(unknown), history)
        return Durable(
            durable.layouts[rows], durable.firsts[rows], durable.sessions[rows], durable.nodes[rows]
        )

    def unsaved_units(self) -> set[str]:
        """Devices with a birth that is not durable yet."""
        return {device for _, _, device in self._unsaved if device}

    def _of(self, history: bool) -> Durable:
        durable, size = self._durable[history], len(self._units)
        if size > len(durable.layouts):
            durable = self._durable[history] = Durable(
                grown(durable.layouts, size),
                grown(durable.firsts, size),
                grown(durable.sessions, size),
                grown(durable.nodes, size),
            )
        return durable

    def _number(self, key: Key) -> int | None:
        number = self._units.numbers.get(key[2]) if key[2] else None
        if number is None:
            return None
        county, enterprise = self._units.owner(number)
        return number if (county, enterprise) == (key[0].removeprefix(HISTORY), key[1]) else None

    def _look_for(self, numbers: Rows, history: bool) -> None:
        """Tables of units in the state file, many with one query."""
        by_node: dict[tuple[str, str], list[int]] = {}
        for number in numbers.tolist():
            by_node.setdefault(self._units.owner(number), []).append(number)
        durable = self._of(history)
        for (county, node), some in by_node.items():
            county = HISTORY + county if history else county
            durable.nodes[some] = self.nodes.find(county, node).number
            devices = dict(zip(self._units.ids(np.array(some)), some, strict=True))
            for device in list(devices):
                table = self._tables.pop((county, node, device), None)
                if table is not None:
                    self._keep(table)
                    del devices[device]
            missing = list(devices)
            for start in range(0, len(missing), TOGETHER):
                part = missing[start : start + TOGETHER]
                durable.layouts[[devices[device] for device in part]] = -1
                for saved in self._load(county, node, part):
                    if saved.redefined_ms:
                        self._keep(self._table(county, node, saved))
                        continue
                    number = devices[saved.device]
                    layout, durable.firsts[number] = layout_of(saved.aliases)
                    durable.layouts[number] = self.layouts.number(layout)
                    durable.sessions[number] = saved.session

    def _keep(self, table: BirthTable) -> None:
        number = self._number(table.key)
        if number is None:
            self._tables[table.key] = table
            return
        table.said_ms = None
        self._tables.pop(table.key, None)
        history = table.key[0].startswith(HISTORY)
        durable = self._of(history)
        durable.nodes[number] = self.nodes.find(*table.key[:2]).number
        if table.ambiguous or table.redefined_ms:
            self._odd[table.key] = table
        else:
            self._odd.pop(table.key, None)
        durable.sessions[number] = table.session
        if table.ambiguous:  # only the plain way knows of that
            durable.layouts[number] = -1
            return
        layout, durable.firsts[number] = layout_of(table.aliases)
        durable.layouts[number] = self.layouts.number(layout)

    def _table(self, county: str, node: str, saved: _Saved) -> BirthTable:
        ambiguous = 0 <= self._started_ms - saved.redefined_ms < AMBIGUOUS_MS
        meanings = _meanings(*layout_of(saved.aliases))
        return BirthTable(
            (county, node, saved.device), meanings, saved.session, saved.redefined_ms, ambiguous
        )

    def _load(self, county: str, node: str, devices: Sequence[str]) -> Iterator[_Saved]:
        """What the state file holds of these."""
        places = ",".join("?" * len(devices))
        rows = self._state.read_all(
            "SELECT device, aliases, redefined_ms, coalesce(session, 0) FROM births "  # noqa: S608  # places
            "LEFT JOIN sessions USING (county, node, device) "
            f"WHERE county = ? AND node = ? AND device IN ({places})",
            (county, node, *devices),
        )
        for row in rows:
            try:
                device, body, redefined_ms, session = msgspec.convert(row, type=tuple[str, bytes, int, int])
                yield _Saved(device, _decode_aliases(body), redefined_ms, session)
            except (
                msgspec.MsgspecError
            ) as error:  # damaged: as if there were none, and a rebirth is asked for
                log.error("a birth in the state file cannot be read", of=f"{county}/{node}", error=str(error))


def save(
    connection: sqlite3.Connection, tables: Iterable[BirthTable], sessions: Iterable[SessionRow] = ()
) -> None:
    """Write the tables and the sessions, in their order, inside the caller's transaction."""
    connection.executemany("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", sessions)
    connection.executemany(
        "INSERT OR REPLACE INTO births VALUES (?, ?, ?, ?, ?)",
        [(*table.key, msgspec.msgpack.encode(table.aliases), table.redefined_ms) for table in tables],
    )
