"""The short way for what nearly every Sparkplug message is: floats by alias, encoded in the order of the
fields' numbers. Between two such payloads of a device only time, sequence number and floats change, so the
bytes between them are learned once, and from then on compared instead of parsed. What is in any way different
is left to `sparkplug.decode`; where this answers, it answers the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

MAX_LAYOUTS = 20_000
"""About 1 kB each; devices alike share them. Beyond, no more are learned."""
MAX_ALIKE = 8
_HEAD = 7  # bytes of the payload's timestamp, from 2004 to 2109
_KEY = slice(_HEAD, _HEAD + 5)  # the first metric up to its alias

# Fields of Payload: timestamp 1, metrics 2, seq 3; of Metric: alias 2, datatype 4, is_historical 5,
# float_value 12 (four bytes), double_value 13 (eight bytes).
_TIMESTAMP, _METRIC = 0x08, 0x12
_ALIAS, _DATATYPE, _HISTORICAL = 0x10, 0x20, 0x28
_VALUES = {0x65: ("f", 4), 0x69: ("d", 8)}


class Floats(NamedTuple):
    ts_ms: int
    seq: int | None
    aliases: tuple[int, ...]
    values: tuple[float, ...]


class _Layout(NamedTuple):
    unpack: Callable[[bytes], tuple[Any, ...]]
    between: tuple[bytes, ...]
    aliases: tuple[int, ...]


_layouts: dict[tuple[int, bytes], tuple[_Layout, ...]] = {}


def decode(body: bytes) -> Floats | None:
    """None for a payload that is not as plain as that."""
    key = (len(body), body[_KEY])
    known = _layouts.get(key, ())
    for layout in known:
        parts = layout.unpack(body)
        if parts[1:-1:2] == layout.between:
            break
    else:
        learned = _learn(body)
        if learned is None:
            return None
        layout = learned
        parts = layout.unpack(body)
        if len(known) < MAX_ALIKE and (known or len(_layouts) < MAX_LAYOUTS):
            _layouts[key] = (*known, layout)
    ts_ms, tail = _timestamp(parts[0]), parts[-1]
    if ts_ms is None or tail not in _SEQUENCES:
        return None
    return Floats(ts_ms, _SEQUENCES[tail], layout.aliases, parts[2:-1:2])


def _learn(body: bytes) -> _Layout | None:
    place, codes = _HEAD, [f"<{_HEAD}s"]
    between: list[bytes] = []
    aliases: list[int] = []
    try:
        while place < len(body) and body[place] == _METRIC:
            length, at = _varint(body, place + 1)
            end = at + length
            if body[at] != _ALIAS:
                return None
            alias, at = _varint(body, at + 1)
            for field in (_DATATYPE, _HISTORICAL):
                if body[at] == field:
                    at = _varint(body, at + 1)[1]
            if body[at] not in _VALUES:
                return None
            code, size = _VALUES[body[at]]
            if at + 1 + size != end or end > len(body):
                return None
            codes.append(f"{at + 1 - place}s{code}")
            between.append(body[place : at + 1])
            aliases.append(alias)
            place = end
    except IndexError:
        return None
    if not aliases:
        return None
    codes.append(f"{len(body) - place}s")
    return _Layout(Struct("".join(codes)).unpack, tuple(between), tuple(aliases))


def _varint(body: bytes, place: int) -> tuple[int, int]:
    """The number and where it ends. Raises IndexError."""
    number = shift = 0
    while True:
        digit = body[place]
        place += 1
        number |= (digit & 0x7F) << shift
        if digit < 0x80:
            return number, place
        shift += 7
        if shift > 28:  # more than any alias, datatype or length of ours; others go the long way
            raise IndexError


@lru_cache(maxsize=4096)  # many units are sampled in the same millisecond
def _timestamp(head: bytes) -> int | None:
    if head[0] != _TIMESTAMP or head[-1] > 0x7F or any(digit < 0x80 for digit in head[1:-1]):
        return None
    return sum((digit & 0x7F) << 7 * place for place, digit in enumerate(head[1:]))


_SEQUENCES: dict[bytes, int | None] = {
    b"": None,
    **{b"\x18" + bytes((seq,)): seq for seq in range(128)},
    **{b"\x18" + bytes((seq & 0x7F | 0x80, 1)): seq for seq in range(128, 256)},
}
