"""Fast path for Sparkplug: decodes many data messages into columns, for the form of nearly all DDATA. Metrics
by alias, fields in the order of their numbers, floats, booleans and small whole numbers, of one reading or
many. Between messages of one layout only times, aliases, sequence number and values change, at fixed
positions. So a layout is learned once, and then compared with all messages of a length at once. Any other
form is left to `sparkplug.decode`. Results of both are the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from qilu_contract.columns import Floats, Ints
from qilu_contract.wire.sparkplug import DataType
from qilu_contract.wire.sparkplug_layouts import MIN_LENGTH, SEQ, WHOLE, Layout, Metrics, Part, learn

NO_SEQ = -1
MAX_METRICS = 200_000
"""Of all layouts that are known, up to 400 bytes each; the one that was not used for longest goes."""
MAX_LAYOUTS = 4096
MAX_ALIKE = 8
"""Layouts of one length: each may be compared with every message of that length."""
MAX_LEARNED, MAX_LEARNED_ALIKE = 64, 4
"""Maximum number of messages from which one call learns, in total and of one length: learning costs as much
as the plain path."""
BLOCK_BYTES, MIN_ROWS = 256 * 1024, 16
"""Of messages that are worked on at once: more would leave the processor's cache between two steps."""


class Group(NamedTuple):
    """Readings with the same metrics, in the order of their messages; a message may have several."""

    of: Ints
    """Of each reading, the place of its message among those that were given."""
    ts_ms: Ints
    first: Ints
    """Alias of each reading's first value."""
    metrics: Metrics
    values: Floats
    """A row for each reading, finite numbers."""


class Decoded(NamedTuple):
    groups: list[Group]
    seq: NDArray[np.int16]
    """Of each message: 0 to 255, or NO_SEQ; means nothing for the rest."""
    rest: list[int]
    """Places of the messages that are not plain, none of whose readings is in a group."""


class Found:
    """Readings, as they are found."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self.seq = np.full(len(bodies), NO_SEQ, dtype=np.int16)
        self.rest: list[int] = []
        self._parts: dict[Metrics, list[tuple[Ints, Ints, Ints, Floats]]] = {}

    def add(self, part: Part, places: Ints) -> None:
        of = places[part.rows]
        if part.metrics is None:
            self.rest += of.tolist()
        else:
            self._parts.setdefault(part.metrics, []).append((of, part.ts_ms, part.first, part.values))

    def decoded(self) -> Decoded:
        groups = [_group(metrics, parts) for metrics, parts in self._parts.items()]
        return Decoded(groups, self.seq, sorted(self.rest))


_L = TypeVar("_L", bound=Layout)


class LayoutColumns(Generic[_L]):
    """Keeps the layouts that were learned."""

    def __init__(self, learn: Callable[[bytes], _L | None]) -> None:
        self._learn = learn
        self._layouts: OrderedDict[_L, None] = OrderedDict()
        self._by_length: dict[int, list[_L]] = {}
        self._metrics = 0
        self._budget = 0

    def _by_layout(
        self, bodies: Sequence[bytes], found: Found
    ) -> Iterator[tuple[_L, NDArray[np.uint8], Ints]]:
        """Messages of one layout, a row each, and their places."""
        self._budget = MAX_LEARNED
        text = b"".join(bodies)
        lengths = np.fromiter(map(len, bodies), dtype=np.int64, count=len(bodies))
        ends = np.cumsum(lengths)
        starts = ends - lengths
        found.rest += np.flatnonzero(lengths < MIN_LENGTH).tolist()
        long = np.flatnonzero(lengths >= MIN_LENGTH)
        found.seq[long], tails = _sequence(np.frombuffer(text, dtype=np.uint8), ends[long])
        lengths[long] -= tails
        for places in _by_length(lengths, long):
            length = int(lengths[places[0]])
            pieces = np.ndarray(len(text) - length + 1, np.dtype((np.void, length)), text, 0, (1,))
            matrix = pieces[starts[places]].view(np.uint8).reshape(len(places), length)
            for layout, rows in self._alike(matrix):
                if layout is None:
                    found.rest += places[rows].tolist()
                elif len(rows) == len(matrix):
                    yield layout, matrix, places
                else:
                    yield layout, matrix[rows], places[rows]

    def _alike(self, matrix: NDArray[np.uint8]) -> Iterator[tuple[_L | None, Ints]]:
        """Rows by layout; with None those that have none."""
        rows = np.arange(len(matrix))
        for layout in tuple(self._by_length.get(matrix.shape[1], ())):
            fits = layout.fits(matrix)
            if fits.any():
                self._layouts.move_to_end(layout)
                yield layout, rows[fits]
                if fits.all():
                    return
                rows, matrix = rows[~fits], matrix[~fits]
        for _ in range(min(self._budget, MAX_LEARNED_ALIKE)):
            if not len(rows):
                return
            self._budget -= 1
            learned = self._learn(matrix[0].tobytes())
            fits = np.arange(len(rows)) == 0
            if learned is not None:
                self._remember(learned)
                fits = learned.fits(matrix)
            yield learned, rows[fits]
            rows, matrix = rows[~fits], matrix[~fits]
        yield None, rows

    def _remember(self, layout: _L) -> None:
        alike = self._by_length.setdefault(len(layout.expected), [])
        self._layouts[layout] = None
        self._metrics += len(layout.types)
        alike.append(layout)
        if len(alike) > MAX_ALIKE:
            self._forget(next(each for each in self._layouts if each in alike))
        while self._metrics > MAX_METRICS or len(self._layouts) > MAX_LAYOUTS:
            self._forget(next(iter(self._layouts)))

    def _forget(self, layout: _L) -> None:
        del self._layouts[layout]
        self._metrics -= len(layout.types)
        alike = self._by_length[len(layout.expected)]
        alike.remove(layout)
        if not alike:
            del self._by_length[len(layout.expected)]


class SparkplugColumns(LayoutColumns[Layout]):
    def __init__(self) -> None:
        super().__init__(learn)

    def decode(self, bodies: Sequence[bytes]) -> Decoded:
        """The readings of DDATA messages, of whatever units."""
        found = Found(bodies)
        for layout, matrix, places in self._by_layout(bodies, found):
            for part in layout.readings(matrix):
                found.add(part, places)
        return found.decoded()


def _sequence(text: NDArray[np.uint8], ends: Ints) -> tuple[Any, Ints]:
    """Sequence numbers of messages that end there, and their size in bytes with the tag. Other bytes may look
    like a sequence number; then the bytes before them are not a valid message."""
    last, before = text[ends - 1].astype(np.int16), text[ends - 2].astype(np.int16)
    is_long = (last == 1) & (before > 0x7F) & (text[ends - 3] == SEQ)
    is_short = (last <= 0x7F) & (before == SEQ)
    seq = np.where(is_long, before, np.where(is_short, last, NO_SEQ))
    return seq, np.where(is_long, 3, np.where(is_short, 2, 0))


def _by_length(lengths: Ints, places: Ints) -> Iterator[Ints]:
    """These places, those of messages of the same length together, where most are alike first."""
    ordered = places[np.argsort(lengths[places], kind="stable")]
    ends = np.flatnonzero(np.diff(lengths[ordered], append=-1)) + 1
    found = [ordered[begin:end] for begin, end in zip([0, *ends.tolist()], ends.tolist(), strict=False)]
    for alike in sorted(found, key=len, reverse=True):
        most = max(MIN_ROWS, BLOCK_BYTES // int(lengths[alike[0]]))
        for begin in range(0, len(alike), most):
            yield alike[begin : begin + most]


def _group(metrics: Metrics, parts: list[tuple[Ints, Ints, Ints, Floats]]) -> Group:
    of, ts_ms, first, values = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    if (of[1:] < of[:-1]).any():
        order = np.argsort(of, kind="stable")
        of, ts_ms, first, values = of[order], ts_ms[order], first[order], values[order]
    return Group(of, ts_ms, first, metrics, values)


def integers(values: Floats, datatype: int) -> tuple[Floats, NDArray[np.bool_]]:
    """The numbers that are meant by whole numbers as they travelled, and which of them are understood: see
    `sparkplug.integer`."""
    if datatype not in WHOLE or not datatype:
        return values, np.zeros(values.shape, dtype=bool)
    is_signed = datatype <= DataType.INT64
    bits = 8 << (datatype - (DataType.INT8 if is_signed else DataType.UINT8))
    if not is_signed:
        return values, values < 2.0**bits
    half = 2.0 ** (bits - 1)
    good = values < half
    for width in {bits, 32, 64}:
        negative = (values >= 2.0**width - half) & (values < 2.0**width)
        values = np.where(negative & ~good, values - 2.0**width, values)
        good = good | negative
    return values, good
