"""The short way for what nearly every Sparkplug message is: floats by alias, encoded in the order of the
fields' numbers, either none or all of them with a time of their own. Between two such payloads of a device
only times, sequence number and floats change, so the bytes between them are learned once, and from then on
compared instead of parsed. What is in any way different is left to `sparkplug.decode`; where this answers, it
answers the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

MAX_METRICS = 200_000
"""Of all layouts together, about 150 bytes each; devices alike share them. Beyond, no more are learned."""
MAX_ALIKE = 8
_TIME = 6  # bytes of a timestamp, from 2004 to 2109
_HEAD = 1 + _TIME
_KEY = slice(_HEAD, _HEAD + 5)  # the first metric up to its alias

# Fields of Payload: timestamp 1, metrics 2, seq 3; of Metric: alias 2, timestamp 3, datatype 4,
# is_historical 5, float_value 12 (four bytes), double_value 13 (eight bytes).
_PAYLOAD_TIME, _METRIC = b"\x08", 0x12
_ALIAS, _OWN_TIME, _DATATYPE, _HISTORICAL = 0x10, 0x18, 0x20, 0x28
_VALUES = {0x65: ("f", 4), 0x69: ("d", 8)}
_FLOATS = (9, 10)


class Floats(NamedTuple):
    ts_ms: int
    seq: int | None
    aliases: tuple[int, ...]
    values: tuple[float, ...]
    times_ms: tuple[int, ...] | None
    """Of each value, when they have times other than the payload's."""


class _Layout(NamedTuple):
    unpack: Callable[[bytes], tuple[Any, ...]]
    aliases: tuple[int, ...]
    step: int
    """Parts of a metric: bytes and value, or bytes, time, bytes and value."""
    bytes_between: tuple[tuple[bytes, ...], ...]


_layouts: dict[tuple[int, bytes], tuple[_Layout, ...]] = {}
_learned = {"metrics": 0}


def decode(body: bytes) -> Floats | None:
    """None for a payload that is not as plain as that."""
    key = (len(body), body[_KEY])
    known = _layouts.get(key, ())
    for layout in known:
        parts = layout.unpack(body)
        if _between(parts, layout.step) == layout.bytes_between:
            break
    else:
        learned = _learn(body)
        if learned is None:
            return None
        layout = learned
        parts = layout.unpack(body)
        if len(known) < MAX_ALIKE and _learned["metrics"] + len(layout.aliases) <= MAX_METRICS:
            _learned["metrics"] += len(layout.aliases)
            _layouts[key] = (*known, layout)
    step, tail = layout.step, parts[-1]
    ts_ms = _timestamp(parts[1])
    if ts_ms is None or tail not in _SEQUENCES:
        return None
    times_ms = None
    if step == 4:
        times = parts[3:-1:4]
        if times.count(parts[1]) < len(times):
            times_ms = tuple(map(_timestamp, times))
            if None in times_ms:
                return None
    return Floats(ts_ms, _SEQUENCES[tail], layout.aliases, parts[1 + step : -1 : step], times_ms)  # type: ignore[arg-type]  # no None among the times


def _between(parts: tuple[Any, ...], step: int) -> tuple[tuple[bytes, ...], ...]:
    """The parts that are the same in every payload of a layout."""
    if step == 2:
        return parts[:1], parts[2:-1:2]
    return parts[:1], parts[2:-1:4], parts[4:-1:4]


def _learn(body: bytes) -> _Layout | None:
    if body[:1] != _PAYLOAD_TIME:
        return None
    place, codes = _HEAD, [f"<1s{_TIME}s"]
    aliases: list[int] = []
    step = 0
    try:
        while place < len(body) and body[place] == _METRIC:
            length, at = varint(body, place + 1)
            end = at + length
            if body[at] != _ALIAS:
                return None
            alias, at = varint(body, at + 1)
            has_time = body[at] == _OWN_TIME
            if step not in (0, 4 if has_time else 2):
                return None
            step = 4 if has_time else 2
            if has_time:
                codes.append(f"{at + 1 - place}s{_TIME}s")
                place = at = at + _HEAD
            if body[at] == _DATATYPE:
                datatype, at = varint(body, at + 1)
                if datatype not in _FLOATS:
                    return None
            if body[at] == _HISTORICAL:
                at = varint(body, at + 1)[1]
            if body[at] not in _VALUES:
                return None
            code, size = _VALUES[body[at]]
            if at + 1 + size != end or end > len(body):
                return None
            codes.append(f"{at + 1 - place}s{code}")
            aliases.append(alias)
            place = end
    except IndexError:
        return None
    if not aliases:
        return None
    codes.append(f"{len(body) - place}s")
    unpack = Struct("".join(codes)).unpack
    return _Layout(unpack, tuple(aliases), step, _between(unpack(body), step))


def varint(body: bytes, place: int, most_bytes: int = 5) -> tuple[int, int]:
    """The number and where it ends. Raises IndexError for one of more bytes: no alias, datatype or length of
    ours is as large, and others go the long way."""
    number = shift = 0
    while True:
        digit = body[place]
        place += 1
        number |= (digit & 0x7F) << shift
        if digit < 0x80:
            return number, place
        shift += 7
        if shift >= 7 * most_bytes:
            raise IndexError


@lru_cache(maxsize=4096)  # many units are sampled in the same millisecond
def _timestamp(digits: bytes) -> int | None:
    if digits[-1] > 0x7F or any(digit < 0x80 for digit in digits[:-1]):
        return None
    return sum((digit & 0x7F) << 7 * place for place, digit in enumerate(digits))


_SEQUENCES: dict[bytes, int | None] = {
    b"": None,
    **{b"\x18" + bytes((seq,)): seq for seq in range(128)},
    **{b"\x18" + bytes((seq & 0x7F | 0x80, 1)): seq for seq in range(128, 256)},
}
