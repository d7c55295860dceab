"""Layouts of Sparkplug data messages: between two messages of one layout only times, aliases and values
change, at fixed positions. A layout is learned from one message, and then decodes all that match, one row
each, with numpy alone. The sequence number at the end is not part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qilu_contract.columns import Floats, Ints
from qilu_contract.wire.sparkplug import DataType

MIN_LENGTH = 13
"""Of a message, without its sequence number: a time, and a metric of an alias and a boolean."""
MAX_PATTERNS = 8
"""Of the messages of one layout that are read at once: the others are not plain."""
MAX_KEPT = 2
"""Patterns of a layout that are kept taken apart."""
MAX_VARINT = 4
"""Bytes of a number whose size is learned: no alias, datatype or length of ours has more."""
_TIME, _TIME_MASK = 6, 0x7F7F7F7F7F7F  # bytes of a timestamp, from 2004 to 2109
# Fields of Payload: timestamp 1, metrics 2, seq 3; of Metric: name 1, alias 2, timestamp 3, datatype 4,
# is_historical 5, properties 9, int_value 10, long_value 11, float_value 12 (four bytes), double_value 13
# (eight bytes), boolean_value 14.
_PAYLOAD_TIME, _METRIC, SEQ = 0x08, 0x12, 0x18
_NAME, _ALIAS, _OWN_TIME, _DATATYPE, _HISTORICAL, _PROPERTIES = 0x0A, 0x10, 0x18, 0x20, 0x28, 0x4A
_INT, _LONG, _FLOAT, _DOUBLE, _BOOLEAN = 0x50, 0x58, 0x65, 0x69, 0x70
WHOLE = (DataType.UNKNOWN, *range(DataType.INT8, DataType.UINT64 + 1))
"""Datatypes of whole numbers."""


class Metrics(NamedTuple):
    """Content of readings besides times and values; equal for identical units, whatever their first alias."""

    steps: tuple[int, ...]
    """Of each value, its alias less the reading's first; the first is 0, and no two are the same."""
    types: tuple[int, ...]
    """FLOAT, DOUBLE, BOOLEAN (0 or 1), or the datatype of a whole number, which is as it travelled, unsigned
    (see `integers`): UNKNOWN when only its birth can say."""


class Part(NamedTuple):
    rows: Ints
    """Of each reading, the row of its message."""
    metrics: Metrics | None
    """None: these rows are not plain after all."""
    ts_ms: Ints = np.empty(0, np.int64)
    first: Ints = np.empty(0, np.int64)
    values: Floats = np.empty(0)


class Birth(NamedTuple):
    """Content of births of one layout and pattern, besides readings."""

    rows: Ints
    said_ms: Ints
    """Times of the payloads."""
    first: Ints
    """The lowest alias of each."""
    steps: tuple[int, ...]
    """Of each metric, its alias less that one."""


class _Reading(NamedTuple):
    """Readings with the same metrics, of each message with one pattern."""

    metrics: Metrics
    begins: list[int]
    """Of each, the place of its first metric."""
    columns: list[int]
    """Places of their metrics."""


class _Fields:
    """Unsigned numbers of seven bits a byte, of up to eight bytes, at the same places in each row."""

    def __init__(self, places: Sequence[int], sizes: Sequence[int], length: int) -> None:
        at = np.array(places, dtype=np.int64)
        self._at = np.minimum(at, length - 8)
        self._shift = (at - self._at) * 8
        self._is_shifted = bool(self._shift.any())
        self._most = max(sizes, default=1)
        self._keep = np.array([(1 << 8 * size) - 1 & 0x7F7F7F7F7F7F7F7F for size in sizes], dtype=np.int64)

    def raw(self, matrix: NDArray[np.uint8]) -> Ints:
        """Bytes as numbers: the same for the same number, where its size is the same."""
        count, length = matrix.shape
        words = np.ndarray((count, length - 7), "<i8", matrix, 0, (length, 1))[:, self._at]
        if self._is_shifted:
            words >>= self._shift
        words &= self._keep
        return words

    def numbers(self, matrix: NDArray[np.uint8]) -> Ints:
        return _numbers(self.raw(matrix), self._most)


def _numbers(raw: Ints, size: int) -> Ints:
    """Decode the bytes as numbers; none has more than `size`."""
    if size > 1:
        raw = (raw & 0x007F007F007F007F) | (raw & 0x7F007F007F007F00) >> 1
    if size > 2:
        raw = (raw & 0x00003FFF00003FFF) | (raw & 0x3FFF00003FFF0000) >> 2
    if size > 4:
        raw = (raw & 0x0FFFFFFF) | (raw & 0x0FFFFFFF00000000) >> 4
    return raw


class _Block(NamedTuple):
    """Messages of a layout, a row each."""

    rows: Ints
    pattern: Ints
    """Equal where the aliases have the same steps, and the times change at the same metrics."""
    times: Ints
    """Times of each metric, as bytes; a single column if no metric has a separate time."""
    aliases: Ints
    values: Floats

    def take(self, which: Any) -> _Block:
        return _Block._make(each[which] for each in self)


class _Metric(NamedTuple):
    """Positions of the parts of a metric, and the sizes of those of variable size."""

    alias_at: int
    alias_size: int
    time_at: int
    type: int
    """Of the value, as in Metrics."""
    value_at: int
    value_size: int


class Layout:
    def __init__(self, body: bytes, metrics: Sequence[_Metric], mask: NDArray[np.uint8]) -> None:
        length = len(body)
        self._mask, self.expected = mask, np.frombuffer(body, dtype=np.uint8) & mask
        self.types = tuple([metric.type for metric in metrics])
        self._aliases = _Fields(
            [metric.alias_at for metric in metrics], [metric.alias_size for metric in metrics], length
        )
        self._has_times = any(metric.time_at > 1 for metric in metrics)
        times = [metric.time_at for metric in metrics] if self._has_times else [1]
        self._times = _Fields(times, [_TIME] * len(times), length)
        self._values: list[tuple[Any, Ints, Any]] = []
        for code, types in (
            ("<f4", (DataType.FLOAT,)),
            ("<f8", (DataType.DOUBLE,)),
            ("u1", (DataType.BOOLEAN,)),
        ):
            columns = [n for n, type_ in enumerate(self.types) if type_ in types]
            if columns:
                at = np.array([metrics[n].value_at for n in columns])
                self._values.append((np.dtype(code), np.array(columns), at))
        whole = [n for n, type_ in enumerate(self.types) if type_ in WHOLE]
        self._whole = np.array(whole, dtype=np.int64)
        self._integers = _Fields(
            [metrics[n].value_at for n in whole], [metrics[n].value_size for n in whole], length
        )
        self._patterns: dict[bytes, list[_Reading]] = {}

    def fits(self, matrix: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Mask of rows whose message has this layout."""
        found: NDArray[np.bool_] = ((matrix & self._mask) == self.expected).all(axis=1)
        return found

    def readings(self, matrix: NDArray[np.uint8]) -> Iterator[Part]:
        """The readings of messages of this layout."""
        for block, is_plain in self._blocks(matrix):
            if is_plain:
                yield from self._of_pattern(block)
            else:
                yield Part(block.rows, None)

    def births(self, matrix: NDArray[np.uint8]) -> Iterator[tuple[Birth, list[Part]]]:
        """The readings and other content of births of this layout."""
        said_ms = _numbers(
            np.ndarray((len(matrix), 1), "<i8", np.ascontiguousarray(matrix[:, 1:9])) & _TIME_MASK, _TIME
        )
        for block, is_plain in self._blocks(matrix):
            steps = block.pattern[0] >> 1 if self._has_times else block.pattern[0]
            low = int(steps.min())
            birth = Birth(
                block.rows, said_ms[block.rows, 0], block.aliases[:, 0] + low, tuple((steps - low).tolist())
            )
            good = is_plain and len(set(birth.steps)) == len(birth.steps)
            yield birth, list(self._of_pattern(block)) if good else [Part(block.rows, None)]

    def _blocks(self, matrix: NDArray[np.uint8]) -> Iterator[tuple[_Block, bool]]:
        """Messages with one pattern each; or such that are not plain after all."""
        aliases = self._aliases.numbers(matrix)
        pattern = aliases - aliases[:, :1]
        times = self._times.raw(matrix)
        if self._has_times:
            pattern <<= 1
            pattern[:, 1:] |= times[:, 1:] != times[:, :-1]
        left = _Block(np.arange(len(matrix)), pattern, times, aliases, self._read(matrix))
        finite = np.isfinite(left.values)
        if not finite.all():
            plain = finite.all(axis=1)
            yield left.take(~plain), False
            left = left.take(plain)
        for _ in range(MAX_PATTERNS):
            if not len(left.rows):
                return
            same = left.pattern == left.pattern[0]
            if same.all():
                yield left, True
                return
            alike = same.all(axis=1)
            yield left.take(alike), True
            left = left.take(~alike)
        if len(left.rows):
            yield left, False

    def _read(self, matrix: NDArray[np.uint8]) -> Floats:
        count, length = matrix.shape
        values = np.empty((len(self.types), count)).T  # what is written and read is one column at a time
        for dtype, columns, at in self._values:
            size = dtype.itemsize
            values[:, columns] = np.ndarray((count, length - size + 1), dtype, matrix, 0, (length, 1))[:, at]
        if len(self._whole):
            values[:, self._whole] = self._integers.numbers(matrix)
        return values

    def _of_pattern(self, block: _Block) -> Iterator[Part]:
        """The readings of messages with the same pattern."""
        key = block.pattern[0].tobytes()
        readings = self._patterns.get(key)
        if readings is None:
            if len(self._patterns) >= MAX_KEPT:
                self._patterns.clear()
            readings = self._patterns[key] = self._taken_apart(block.pattern[0])
        if not readings:
            yield Part(block.rows, None)
            return
        if len(readings) > 1 or len(readings[0].begins) > 1:
            # Metrics with a time seen before belong to the reading of that time.
            begins = [begin for reading in readings for begin in reading.begins]
            ordered = np.sort(block.times[:, begins], axis=1)
            distinct = (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
            if not distinct.all():
                yield Part(block.rows[~distinct], None)
                block = block.take(distinct)
                if not len(block.rows):
                    return
        for metrics, begins, columns in readings:
            of = block.rows if len(begins) == 1 else np.repeat(block.rows, len(begins))
            picked = block.values if len(columns) == len(self.types) else block.values[:, columns]
            yield Part(
                of,
                metrics,
                _numbers(block.times[:, begins].ravel(), _TIME),
                block.aliases[:, begins].ravel(),
                picked.reshape(len(of), len(metrics.steps)),
            )

    def _taken_apart(self, pattern: Ints) -> list[_Reading]:
        """Nothing if a reading has an alias twice."""
        steps, begins = pattern.tolist(), [0]
        if self._has_times:
            begins += [n for n, step in enumerate(steps) if step & 1]
            steps = [step >> 1 for step in steps]
        found: dict[Metrics, _Reading] = {}
        for begin, end in zip(begins, [*begins[1:], len(steps)], strict=True):
            own = tuple([step - steps[begin] for step in steps[begin:end]])
            if len(set(own)) < len(own):
                return []
            metrics = Metrics(own, self.types[begin:end])
            reading = found.setdefault(metrics, _Reading(metrics, [], []))
            reading.begins.append(begin)
            reading.columns.extend(range(begin, end))
        return list(found.values())


def learn(body: bytes) -> Layout | None:
    """The layout of a data message, whose sequence number was cut off; None if it is not plain."""
    found = metrics_of(body, named=False)
    return Layout(body, *found) if found is not None else None


def metrics_of(body: bytes, *, named: bool) -> tuple[list[_Metric], NDArray[np.uint8]] | None:
    """The metrics of a message, and the bits that are the same in all messages of its layout; None if it is
    not plain. `named`: each metric has a name and a datatype, and may have properties, as in births."""
    if body[:1] != bytes((_PAYLOAD_TIME,)):
        return None
    mask = np.full(len(body), 0xFF, dtype=np.uint8)
    metrics: list[_Metric] = []
    try:
        place = _fixed(body, 1, _TIME, mask)
        while place < len(body) and body[place] == _METRIC:
            length, at = _varint(body, place + 1)
            place = at + length
            metric = _learn_metric(body, at, mask, named)
            if metric is None or metric.value_at + metric.value_size != place:
                return None
            metrics.append(metric)
    except IndexError:
        return None
    return (metrics, mask) if metrics and place == len(body) else None


def _learn_metric(body: bytes, at: int, mask: NDArray[np.uint8], named: bool) -> _Metric | None:
    """Raises IndexError."""
    if named:
        if body[at] != _NAME:
            return None
        at = _skipped(body, at)
    if body[at] != _ALIAS:
        return None
    alias_at, time_at, datatype = at + 1, 1, DataType.UNKNOWN.value
    at = _varint(body, alias_at)[1]
    alias_size = at - alias_at
    mask[alias_at:at] = 0x80
    if body[at] == _OWN_TIME:
        time_at = at + 1
        at = _fixed(body, time_at, _TIME, mask)
    if body[at] == _DATATYPE:
        datatype, at = _varint(body, at + 1)
    if body[at] == _HISTORICAL:
        at = _varint(body, at + 1)[1]
    if named and body[at] == _PROPERTIES:
        at = _skipped(body, at)
    if named and datatype == DataType.UNKNOWN:
        return None
    tag, at = body[at], at + 1
    if tag in (_FLOAT, _DOUBLE) and datatype in (DataType.UNKNOWN, DataType.FLOAT, DataType.DOUBLE):
        size = 4 if tag == _FLOAT else 8
        mask[at : at + size] = 0
        type_ = DataType.FLOAT if tag == _FLOAT else DataType.DOUBLE
        return _Metric(alias_at, alias_size, time_at, type_, at, size)
    if tag == _BOOLEAN and datatype in (DataType.UNKNOWN, DataType.BOOLEAN):
        mask[at] = 0xFE
        return _Metric(alias_at, alias_size, time_at, DataType.BOOLEAN, at, 1) if body[at] < 2 else None
    if tag in (_INT, _LONG) and datatype in WHOLE:
        size = _varint(body, at)[1] - at
        mask[at : at + size] = 0x80
        return _Metric(alias_at, alias_size, time_at, datatype, at, size)
    return None


def _skipped(body: bytes, at: int) -> int:
    """End of the length-delimited field that begins there."""
    length, at = _varint(body, at + 1)
    return at + length


def _fixed(body: bytes, at: int, size: int, mask: NDArray[np.uint8]) -> int:
    """End of the number of this size; raises IndexError if its size differs."""
    end = at + size
    if body[end - 1] > 0x7F or any(digit < 0x80 for digit in body[at : end - 1]):
        raise IndexError
    mask[at:end] = 0x80
    return end


def _varint(body: bytes, place: int) -> tuple[int, int]:
    """The number and where it ends. Raises IndexError for one of more than MAX_VARINT bytes."""
    number = 0
    for size in range(MAX_VARINT):
        digit = body[place + size]
        number |= (digit & 0x7F) << 7 * size
        if digit < 0x80:
            return number, place + size + 1
    raise IndexError
