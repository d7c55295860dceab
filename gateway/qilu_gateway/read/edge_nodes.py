"""Sessions and sequence numbers of edge nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from qilu_contract.columns import Ints, Rows, grown

from qilu_gateway.statefile import StateFile

TOGETHER = 5000
"""Maximum number of rows read by one query."""


class SessionRow(NamedTuple):
    """State that a birth or death changes. For a node (`device` is empty): the number of its connections
    known to have ended, and the bdSeq of its last birth. For a device: DEAD."""

    county: str
    node: str
    device: str
    session: int
    bd_seq: int | None = None


class EdgeNodes:
    """All edge nodes that this process has seen; some 0.4 kB each, never evicted."""

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self._by_name: dict[tuple[str, str], EdgeNode] = {}
        self._all: list[EdgeNode] = []
        self.sessions: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self.last_seqs: NDArray[np.int16] = np.zeros(0, dtype=np.int16)
        """The last sequence number plus one; 0: unknown."""
        self.heard_s: NDArray[np.float64] = np.zeros(0, dtype=np.float64)
        """When a node was heard last, on the monotonic clock; 0: not since its death, or the start."""

    def find(self, county: str, name: str) -> EdgeNode:
        node = self._by_name.get((county, name))
        if node is None:
            row = self._state.read(
                "SELECT session, bd_seq FROM sessions WHERE county = ? AND node = ? AND device = ''",
                (county, name),
            )
            node = self._add(county, name, row or ())
        return node

    def numbers(self, keys: Sequence[tuple[str, str]]) -> list[int]:
        """The numbers of these nodes, given by county and name, in this order."""
        found = list(map(self._by_name.get, keys))
        if None in found:
            new = list(dict.fromkeys(key for key, node in zip(keys, found, strict=True) if node is None))
            for start in range(0, len(new), TOGETHER):
                some = new[start : start + TOGETHER]
                rows = {(county, name): row for county, name, *row in self._sessions(some)}
                for key in some:
                    self._add(*key, rows.get(key, ()))
            found = list(map(self._by_name.get, keys))
        return [node.number for node in found if node is not None]

    def _sessions(self, keys: Sequence[tuple[str, str]]) -> list[tuple[object, ...]]:
        return self._state.read_all(
            "SELECT county, node, session, bd_seq FROM json_each(?) AS asked CROSS JOIN sessions"
            " ON county = json_extract(asked.value, '$[0]') AND node = json_extract(asked.value, '$[1]')"
            " AND device = ''",
            (msgspec.json.encode(keys).decode(),),
        )

    def _add(self, county: str, name: str, row: Sequence[object]) -> EdgeNode:
        number = len(self._all)
        self.sessions, self.last_seqs = grown(self.sessions, number + 1), grown(self.last_seqs, number + 1)
        self.heard_s = grown(self.heard_s, number + 1)
        node = EdgeNode(self, number, county, name, *row)  # type: ignore[arg-type]  # as the schema says
        self._by_name[county, name] = node
        self._all.append(node)
        return node

    def known(self, county: str, name: str) -> EdgeNode | None:
        return self._by_name.get((county, name))

    def last_heard_s(self) -> float:
        """When a living node was heard last, on the monotonic clock; 0 if there is none."""
        return float(self.heard_s.max(initial=0.0))

    def __getitem__(self, number: int) -> EdgeNode:
        return self._all[number]


class EdgeNode:
    __slots__ = ("_nodes", "bd_seq", "county", "lane", "missing", "name", "number")

    def __init__(
        self,
        nodes: EdgeNodes,
        number: int,
        county: str,
        name: str,
        session: int = 0,
        bd_seq: int | None = None,
    ) -> None:
        self._nodes, self.number, self.county, self.name = nodes, number, county, name
        self.bd_seq = bd_seq
        """bdSeq of its last birth; None if no birth is known or it had none."""
        self.missing: frozenset[int] = frozenset()
        """Skipped sequence numbers that may still arrive."""
        self.lane: int | None = None
        """The lane on which its last birth came."""
        nodes.sessions[number] = session

    @property
    def session(self) -> int:
        """Number of its connections known to have ended."""
        return int(self._nodes.sessions[self.number])

    def end_session(self) -> None:
        """End the current session; births in it become invalid."""
        self._nodes.sessions[self.number] += 1
        self._nodes.heard_s[self.number] = 0.0

    @property
    def last_seq(self) -> int | None:
        """The last sequence number; None if unknown."""
        last = int(self._nodes.last_seqs[self.number]) - 1
        return None if last < 0 else last

    @last_seq.setter
    def last_seq(self, seq: int) -> None:
        self._nodes.last_seqs[self.number] = seq % 256 + 1

    def count_anew(self) -> None:
        """Restart its sequence numbers."""
        self._nodes.last_seqs[self.number] = 0
        self.missing = frozenset()

    def row(self) -> SessionRow:
        return SessionRow(self.county, self.name, "", self.session, self.bd_seq)

    def follow(self, seq: int, dup: bool = False) -> tuple[bool, bool]:
        """Check a sequence number; returns whether it opens a gap, and whether it closes the last one."""
        last, self.last_seq = self.last_seq, seq
        self._nodes.heard_s[self.number] = time.monotonic()
        if last is None or seq == (last + 1) % 256:
            return False, False
        if dup:  # a redelivery restarts at an earlier number
            self.missing = frozenset()
        elif seq == last:  # a replay, or all others are lost: none of them is waited for
            return True, False
        elif seq in self.missing:
            self.last_seq = last
            self.missing -= {seq}
            return False, not self.missing
        else:
            self.missing |= {(last + 1 + step) % 256 for step in range((seq - last - 1) % 256)}
            return True, False
        return False, False


class Followed(NamedTuple):
    """Result of checking the sequence numbers of a node."""

    node: EdgeNode
    gap: bool
    complete: bool


class SequenceNumbers:
    """Checks the sequence numbers of many messages in their order: per node up to a position, and the rest at
    the end."""

    def __init__(self, nodes: EdgeNodes, places: Ints, numbers: Rows, seqs: NDArray[np.int16]) -> None:
        """`places`: indices of the messages, ascending; `numbers` of their nodes; `seqs`: 0 to 255."""
        order = np.argsort(numbers, kind="stable")
        self._nodes = nodes
        self._places, self._numbers, self._seqs = places[order], numbers[order], seqs[order]
        is_first = np.diff(self._numbers, prepend=-1) != 0
        self._begins = np.flatnonzero(is_first)
        nodes.heard_s[self._numbers[self._begins]] = time.monotonic()
        self._ends = np.append(self._begins[1:], len(order))
        self._steady = self._seqs == np.where(is_first, 0, np.roll(self._seqs, 1) + 1) % 256
        self._steady |= is_first
        self._started: dict[int, int] = {}
        """Numbers already checked, by node."""

    def follow_until(self, node: EdgeNode, place: int) -> Iterator[Followed]:
        """Check the numbers of a node before index `place`."""
        at = int(np.searchsorted(self._numbers[self._begins], node.number))
        if at == len(self._begins) or self._numbers[self._begins[at]] != node.number:
            return
        begin, end = self._started.get(at, int(self._begins[at])), int(self._ends[at])
        end = begin + int(np.searchsorted(self._places[begin:end], place))
        self._started[at] = end
        yield from self._one_by_one(begin, end)

    def follow_all(self) -> Iterator[Followed]:
        begins = self._begins
        if not len(begins):
            return
        numbers = self._numbers[begins]
        last = self._nodes.last_seqs[numbers]
        good = (last == 0) | (self._seqs[begins] == last % 256)
        good &= np.logical_and.reduceat(self._steady, begins)
        if self._started:
            good[list(self._started)] = False
        self._nodes.last_seqs[numbers[good]] = self._seqs[self._ends[good] - 1] + 1
        for at in np.flatnonzero(~good).tolist():
            yield from self._one_by_one(self._started.get(at, int(begins[at])), int(self._ends[at]))

    def _one_by_one(self, begin: int, end: int) -> Iterator[Followed]:
        for number, seq in zip(
            self._numbers[begin:end].tolist(), self._seqs[begin:end].tolist(), strict=True
        ):
            node = self._nodes[number]
            gap, complete = node.follow(seq)
            if gap or complete:
                yield Followed(node, gap, complete)
