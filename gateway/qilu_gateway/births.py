"""The alias tables of births: which name and type an alias stands for, per edge node and per device.

A table takes effect at once, and is durable before its birth is acknowledged. It stays valid across restarts
of the gateway, until the next birth replaces it or a death closes it. A table is closed when its `session`
is not the edge node's: the death of a node closes all of its tables by adding one to a single number.
"""

from __future__ import annotations

import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import structlog

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
MAX_NODES = 200_000
"""Edge nodes in memory, about 0.5 kB each; of one that is read from the file again only the last sequence
number is forgotten."""
DEAD = -1
"""The session of a device that has died: no edge node has it."""
MAX_CACHED = 200_000
"""Tables in memory, about 1 kB each; others are read from the file when they are needed."""
AMBIGUOUS_MS = 3600 * 1000
"""How long after an alias got another meaning a redelivered message is not decoded by guess."""

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


class SessionRow(NamedTuple):
    """What the state file keeps beside a table. Of a node (`device` empty): how many of its connections are
    known to have ended, and the bdSeq of its last birth. Of a device: in which session it was born, or DEAD.
    """

    county: str
    node: str
    device: str
    session: int
    bd_seq: int | None = None


@dataclass(slots=True)
class EdgeNode:
    county: str
    name: str
    session: int = 0
    bd_seq: int | None = None
    """Of its last birth; None when no birth is known, or it gave none."""
    last_seq: int | None = None
    missing: set[int] = field(default_factory=set)
    """Sequence numbers that were skipped and may still come."""
    lane: int | None = None
    """The connection of ours on which its last birth came."""

    def count_anew(self) -> None:
        """Its sequence numbers begin again."""
        self.last_seq = None
        self.missing.clear()

    def row(self) -> SessionRow:
        return SessionRow(self.county, self.name, "", self.session, self.bd_seq)


def is_information(name: str | None) -> bool:
    return name is not None and name.startswith(INFORMATION)


@dataclass(slots=True)
class BirthTable:
    key: Key
    aliases: Aliases
    session: int = 0
    redefined_ms: int = 0
    """When a birth gave an alias another meaning than the birth before it; 0 for never."""
    ambiguous: bool = False
    """The meaning changed shortly before this process started, and no birth has come since: a message that
    an earlier process did not acknowledge may mean either.
    """
    said_ms: int | None = None
    """The birth's own time, as long as this is the birth that is being stored."""
    names: dict[int | str, str] = field(init=False)
    """Of the aliases that stand for something measured."""
    types: dict[str, int] = field(init=False)
    """Datatype by name; 0 for a name to which the birth gives several."""

    def __post_init__(self) -> None:
        self.names = {
            alias: name for alias, (name, _) in self.aliases.items() if name and not is_information(name)
        }
        self.types = {}
        for name, datatype in self.aliases.values():
            self.types[name] = datatype if self.types.get(name, datatype) == datatype else 0


class Births:
    """Answers at once. Tables that are not durable yet stay in memory whatever the cache's bound says."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self._cache: OrderedDict[Key, BirthTable] = OrderedDict()
        self._unsaved: dict[Key, BirthTable] = {}
        self._nodes: OrderedDict[tuple[str, str], EdgeNode] = OrderedDict()
        self._started_ms = time.time_ns() // 1_000_000

    def node(self, county: str, name: str) -> EdgeNode:
        """The edge node as its births and deaths left it; a new one when nothing is known of it."""
        node = self._nodes.get((county, name))
        if node is None:
            row = self._state.read(
                "SELECT session, bd_seq FROM sessions WHERE county = ? AND node = ? AND device = ''",
                (county, name),
            )
            node = EdgeNode(county, name, *(row or ()))  # type: ignore[arg-type]  # as the schema says
            self._nodes[county, name] = node
            if len(self._nodes) > MAX_NODES:
                self._nodes.popitem(last=False)
        return node

    def learn(self, key: Key, aliases: Aliases, said_ms: int | None = None, session: int = 0) -> BirthTable:
        """A birth's table, in effect from now on; `saved` or `forget` must follow."""
        table = BirthTable(key, aliases, session, said_ms=said_ms)
        old = self.find(key)
        if old is not None:
            table.redefined_ms = old.redefined_ms
            if any(old.aliases.get(alias, meaning) != meaning for alias, meaning in aliases.items()):
                table.redefined_ms = time.time_ns() // 1_000_000
        self._unsaved[key] = table
        return table

    def find(self, key: Key) -> BirthTable | None:
        table = self._unsaved.get(key) or self._cache.get(key)
        if table is None:
            table = self._load(key)
            if table is not None:
                self._remember(table)
        return table

    def saved(self, table: BirthTable) -> None:
        """The table is durable now."""
        self._remember(table)
        if self._unsaved.get(table.key) is table:
            del self._unsaved[table.key]

    def forget(self, table: BirthTable) -> None:
        """The birth was refused: what was known before is valid again."""
        if self._unsaved.get(table.key) is table:
            del self._unsaved[table.key]

    def devices(self, county: str, node: str) -> list[str]:
        """The devices of an edge node whose births are durable."""
        row = self._state.read(
            "SELECT group_concat(device) FROM births WHERE county = ? AND node = ? AND device <> ''",
            (county, node),
        )
        return str(row[0]).split(",") if row is not None and row[0] is not None else []

    def _remember(self, table: BirthTable) -> None:
        self._cache[table.key] = table
        self._cache.move_to_end(table.key)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)

    def _load(self, key: Key) -> BirthTable | None:
        row = self._state.read(
            "SELECT aliases, redefined_ms, coalesce(session, 0) FROM births "
            "LEFT JOIN sessions USING (county, node, device) WHERE county = ? AND node = ? AND device = ?",
            key,
        )
        if row is None:
            return None
        try:
            body, redefined_ms, session = msgspec.convert(row, type=tuple[bytes, int, int])
            meanings = msgspec.msgpack.decode(body, type=Aliases)
        except msgspec.MsgspecError as error:  # damaged: as if there were none, and a rebirth is asked for
            log.error("a birth in the state file cannot be read", of="/".join(key), error=str(error))
            return None
        ambiguous = 0 <= self._started_ms - redefined_ms < AMBIGUOUS_MS
        return BirthTable(key, meanings, session, redefined_ms, ambiguous)


def save(
    connection: sqlite3.Connection, tables: Iterable[BirthTable], sessions: Iterable[SessionRow] = ()
) -> None:
    """Write the tables and the sessions, in their order, inside the caller's transaction."""
    connection.executemany("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)", sessions)
    connection.executemany(
        "INSERT OR REPLACE INTO births VALUES (?, ?, ?, ?, ?)",
        [(*table.key, msgspec.msgpack.encode(table.aliases), table.redefined_ms) for table in tables],
    )
