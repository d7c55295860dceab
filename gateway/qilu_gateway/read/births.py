"""Alias tables of births: the name and type that an alias stands for, per edge node and per device.

A table takes effect at once, and is durable before its birth is acknowledged. It survives restarts of the
gateway, until the next birth replaces it or a death closes it. A table is closed when its `session` differs
from the edge node's: the death of a node closes all of its tables by incrementing one number.

Identical devices differ at most in their first alias, so their tables share one layout (`layouts.py`), and
four numbers are kept per admitted unit, permanently. Other tables are kept whole.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from qilu_contract.columns import Ints, Rows, grown

from qilu_gateway.admit.units import Units
from qilu_gateway.read import layouts
from qilu_gateway.read.edge_nodes import TOGETHER, EdgeNode, EdgeNodes, SessionRow
from qilu_gateway.read.layouts import Aliases, Layout, Layouts, Meanings, id_of, layout_of
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = (
    layouts.SCHEMA
    + """
CREATE TABLE IF NOT EXISTS born (
  key TEXT PRIMARY KEY,
  layout INTEGER NOT NULL,
  first INTEGER NOT NULL,
  session INTEGER NOT NULL,
  redefined_ms INTEGER NOT NULL
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
)
"""`born`: key is county/node/device, and `first` is the birth's first alias. `sessions`: `device` is empty
for edge nodes."""
DEAD = -1
"""Session number of a dead device; no edge node has it."""
AMBIGUOUS_MS = 3600 * 1000
"""Time after an alias changed its meaning during which a redelivered message is not decoded, because its
meaning would be a guess."""
HISTORY = "~"
"""Prefix of the county for history, which has separate births and aliases."""
NONE, FILED = -1, -2
"""Values in place of a layout's number: no table, or an ambiguous one; table only in the state file."""

Key = tuple[str, str, str]
"""County, node, device (empty for the node's own)."""


@dataclass(slots=True)
class BirthTable:
    key: Key
    meanings: Meanings
    layout: int
    """Number of the layout; 0: none, because there are too many."""
    first: int
    session: int = 0
    redefined_ms: int = 0
    """Time at which a birth last changed the meaning of an alias; 0: never."""
    ambiguous: bool = False
    """The meaning changed shortly before this process started, and no birth has come since: a message that an
    earlier process left unacknowledged may have either meaning.
    """
    said_ms: int | None = None
    """Time of the birth, while the birth itself is being stored."""

    @property
    def aliases(self) -> Aliases:
        return self.meanings.aliases

    @property
    def names(self) -> dict[int | str, str]:
        return self.meanings.names

    @property
    def types(self) -> dict[str, int]:
        return self.meanings.types


class Durable(NamedTuple):
    """Tables of units, by the units' numbers."""

    layouts: NDArray[np.int32]
    """Layout numbers; 0: not looked up yet; or NONE, FILED."""
    firsts: Ints
    sessions: NDArray[np.int32]
    nodes: Rows
    """Numbers of their edge nodes."""

    def take(self, rows: Rows) -> Durable:
        return Durable._make(column[rows] for column in self)


class BornRows(NamedTuple):
    """Births of many units, in the form of the state file."""

    rows: Rows
    """Numbers of the units."""
    layouts: NDArray[np.int32]
    firsts: Ints
    sessions: NDArray[np.int32]
    history: bool

    def take(self, which: NDArray[np.bool_]) -> BornRows:
        rows, layouts, firsts, sessions, history = self
        return BornRows(rows[which], layouts[which], firsts[which], sessions[which], history)


Change = BirthTable | BornRows | SessionRow
"""A change that `save` writes."""


class _Saved(NamedTuple):
    """A row of the state file."""

    key: str
    layout: int
    first: int
    session: int
    redefined_ms: int


class Births:
    """Alias tables by key. Look-ups never wait; tables that are not durable yet are kept separately."""

    def __init__(self, state: StateFile, units: Units | None = None) -> None:
        self._state = state
        self._units = units if units is not None else Units()
        self.nodes = EdgeNodes(state)
        self.layouts = Layouts(state)
        self._tables: dict[Key, BirthTable] = {}
        """Tables of edge nodes, and of devices that are not admitted units."""
        self._unsaved: dict[Key, BirthTable] = {}
        empty, firsts = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
        self._durable = {history: Durable(empty, firsts, empty, empty) for history in (False, True)}
        """Durable tables of units, by whether they belong to history."""
        self._odd: dict[tuple[bool, int], BirthTable] = {}
        """Ambiguous or redefined tables of units, by history and number."""
        self._started_ms = time.time_ns() // 1_000_000

    def node(self, county: str, name: str) -> EdgeNode:
        """The edge node in the state that its births and deaths left; a new one if it is unknown."""
        return self.nodes.find(county, name)

    def learn(self, key: Key, aliases: Aliases, said_ms: int | None = None, session: int = 0) -> BirthTable:
        """Put a birth's table into effect; the caller must call `saved` or `forget` afterwards."""
        layout, first = layout_of(aliases)
        table = self._table(key, layout, first, session)
        table.said_ms = said_ms
        old = self.find(key)
        if old is not None:
            table.redefined_ms = old.redefined_ms
            same = table.layout and (old.layout, old.first) == (table.layout, first)
            if not same and any(
                old.aliases.get(alias, meaning) != meaning for alias, meaning in aliases.items()
            ):
                table.redefined_ms = time.time_ns() // 1_000_000
        self._unsaved[key] = table
        return table

    def find(self, key: Key) -> BirthTable | None:
        table = self._unsaved.get(key) or self._tables.get(key)
        if table is not None:
            return table
        number, history = self._number(key), key[0].startswith(HISTORY)
        if number is not None:
            if (history, number) in self._odd:
                return self._odd[history, number]
            durable = self._of(history)
            layout = int(durable.layouts[number])
            if layout > 0:
                first = int(durable.firsts[number])
                meanings = self.layouts.meanings(layout, first)
                return BirthTable(key, meanings, layout, first, int(durable.sessions[number]))
            if layout == NONE:
                return None
        for saved in self._load(["/".join(key)]):
            table = self._loaded(key, saved)
            if table is not None:
                if number is not None and layout == FILED:
                    table.session = int(durable.sessions[number])  # it may have died since
                self._keep(table)
        return table

    def saved(self, table: BirthTable) -> None:
        """Mark the table as durable."""
        self._keep(table)
        if self._unsaved.get(table.key) is table:
            del self._unsaved[table.key]

    def forget(self, table: BirthTable) -> None:
        """Revert a birth that was rejected: the table before it is valid again."""
        if self._unsaved.get(table.key) is table:
            del self._unsaved[table.key]

    def died(self, table: BirthTable) -> None:
        """Close the table of a device that died; `find` returned the table."""
        table.session = DEAD
        number = self._number(table.key)
        if number is not None:
            self._of(table.key[0].startswith(HISTORY)).sessions[number] = DEAD

    def devices(self, county: str, node: str) -> list[str]:
        """The devices of an edge node whose births are durable."""
        before = f"{county}/{node}/"
        rows = self._state.read_all(
            "SELECT key FROM born WHERE key > ? AND key < ?", (before, f"{county}/{node}0")
        )
        return [str(key).removeprefix(before) for [key] in rows]

    # -- by number

    def durable(self, rows: Rows, *, history: bool) -> Durable:
        """Durable tables of these units, in this order. Raises sqlite3.OperationalError."""
        durable = self._of(history)
        unknown = rows[durable.layouts[rows] == 0]
        if len(unknown):
            self._look_for(np.unique(unknown), history)
        return durable.take(rows)

    def is_odd(self, rows: Rows, *, history: bool) -> NDArray[np.bool_]:
        """Mask of the units whose table is ambiguous or was redefined."""
        if not self._odd:
            return np.zeros(len(rows), dtype=bool)
        return np.array([(history, row) in self._odd for row in rows.tolist()], dtype=bool)

    def learn_rows(self, born: BornRows) -> None:
        """Put births of units into effect. The caller has looked the units up with `durable`, and none of
        them is odd."""
        durable = self._of(born.history)
        durable.layouts[born.rows], durable.firsts[born.rows] = born.layouts, born.firsts
        durable.sessions[born.rows] = born.sessions

    def keys(self, born: BornRows) -> list[Key]:
        before = HISTORY if born.history else ""
        owners = self._units.owners(born.rows)
        return [
            (before + county, node, device)
            for (county, node), device in zip(owners, self._units.ids(born.rows), strict=True)
        ]

    def unsaved_units(self) -> set[str]:
        """Units with a birth that is not durable yet."""
        return {device for _, _, device in self._unsaved if device}

    def _of(self, history: bool) -> Durable:
        durable, size = self._durable[history], len(self._units)
        if size > len(durable.layouts):
            durable = self._durable[history] = Durable._make(grown(column, size) for column in durable)
        return durable

    def _number(self, key: Key) -> int | None:
        number = self._units.numbers.get(key[2]) if key[2] else None
        if number is None:
            return None
        county, enterprise = self._units.owner(number)
        return number if (county, enterprise) == (key[0].removeprefix(HISTORY), key[1]) else None

    def _look_for(self, rows: Rows, history: bool) -> None:
        """Look up tables of units in the state file, many per query."""
        durable, before = self._of(history), HISTORY if history else ""
        owners = [(before + county, node) for county, node in self._units.owners(rows)]
        durable.nodes[rows] = self.nodes.numbers(owners)
        keys = [(*owner, device) for owner, device in zip(owners, self._units.ids(rows), strict=True)]
        numbers: dict[str, int] = {}
        for key, number in zip(keys, rows.tolist(), strict=True):
            table = self._tables.pop(key, None) if self._tables else None
            if table is None:
                numbers["/".join(key)] = number
            else:
                self._keep(table)
        asked = sorted(numbers)  # in key order, as on disk
        found: list[_Saved] = []
        for start in range(0, len(asked), TOGETHER):
            found += self._load(asked[start : start + TOGETHER])
        durable.layouts[list(numbers.values())] = NONE
        ids = dict.fromkeys(saved.layout for saved in found)
        by_id = {id_: known[0] or FILED for id_ in ids if (known := self.layouts.find(id_)) is not None}
        plain = [saved for saved in found if not saved.redefined_ms and saved.layout in by_id]
        at = [numbers[saved.key] for saved in plain]
        durable.layouts[at] = [by_id[saved.layout] for saved in plain]
        durable.firsts[at] = [saved.first for saved in plain]
        durable.sessions[at] = [saved.session for saved in plain]
        for saved in found:
            if saved.redefined_ms:
                county, node, device = saved.key.split("/")
                table = self._loaded((county, node, device), saved)
                if table is not None:
                    self._keep(table)

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
            self._odd[history, number] = table
        else:
            self._odd.pop((history, number), None)
        durable.sessions[number], durable.firsts[number] = table.session, table.first
        # Ambiguous tables are known to the plain path only.
        durable.layouts[number] = NONE if table.ambiguous else table.layout or FILED

    def _table(self, key: Key, layout: Layout, first: int, session: int) -> BirthTable:
        number = self.layouts.number(layout)
        meanings = self.layouts.meanings(number, first) if number else Meanings(layout, first)
        return BirthTable(key, meanings, number, first, session)

    def _loaded(self, key: Key, saved: _Saved) -> BirthTable | None:
        known = self.layouts.find(saved.layout)
        if known is None:
            return None
        table = self._table(key, known[1], saved.first, saved.session)
        table.redefined_ms = saved.redefined_ms
        table.ambiguous = 0 <= self._started_ms - saved.redefined_ms < AMBIGUOUS_MS
        return table

    def _load(self, keys: Sequence[str]) -> Iterator[_Saved]:
        """Rows of these keys in the state file."""
        rows = self._state.read_all(
            "SELECT asked.key, layout, first, session, redefined_ms"
            " FROM json_each(?) AS asked CROSS JOIN born ON born.key = asked.value",
            (msgspec.json.encode(keys).decode(),),
        )
        for place, *row in rows:
            key = keys[place]  # type: ignore[call-overload]  # json_each numbers the values of an array
            try:
                yield msgspec.convert((key, *row), type=_Saved)
            except msgspec.MsgspecError as error:  # treated as missing: a rebirth is requested
                log.error("a birth in the state file cannot be read", of=key, error=str(error))

    # -- in the state file's thread

    def save(self, connection: sqlite3.Connection, changes: Iterable[Change]) -> None:
        """Write changes in their order, inside the caller's transaction."""
        used: dict[int, Layout] = {}
        for kind, some in groupby(changes, type):
            rows: list[tuple[object, ...]] = []
            for change in some:
                if isinstance(change, BornRows):
                    rows += self._rows(change, used)
                elif isinstance(change, BirthTable):
                    rows.append(self._row(change, used))
                elif change.device:
                    key = "/".join((change.county, change.node, change.device))
                    connection.execute("UPDATE born SET session = ? WHERE key = ?", (change.session, key))
                else:
                    connection.execute("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", change)
            if kind is not SessionRow:
                rows.sort(key=itemgetter(0))  # in key order, as on disk; of equal keys the last one wins
                connection.executemany("INSERT OR REPLACE INTO born VALUES (?, ?, ?, ?, ?)", rows)
        bodies = [(id_, layouts.encode(layout)) for id_, layout in used.items()]
        connection.executemany("INSERT OR IGNORE INTO layouts VALUES (?, ?)", bodies)

    def _row(self, table: BirthTable, used: dict[int, Layout]) -> tuple[object, ...]:
        layout = self.layouts[table.layout] if table.layout else layout_of(table.aliases)[0]
        id_ = self.layouts.ids[table.layout] if table.layout else id_of(layout)
        used[id_] = layout
        return "/".join(table.key), id_, table.first, table.session, table.redefined_ms

    def _rows(self, born: BornRows, used: dict[int, Layout]) -> Iterator[tuple[object, ...]]:
        ids = self.layouts.ids
        used.update({ids[number]: self.layouts[number] for number in set(born.layouts.tolist())})
        for key, layout, first, session in zip(
            self.keys(born),
            born.layouts.tolist(),
            born.firsts.tolist(),
            born.sessions.tolist(),
            strict=True,
        ):
            yield "/".join(key), ids[layout], first, session, 0
