"""Fast path for JSON: decodes many messages of one class into columns, for the form of nearly all messages.
Any other form (no `ts`, ISO 8601, a key that is not a signal or is duplicated, null, text, times beyond
2**53, …) is left to `json_payload.decode`, one message at a time. Results of both are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.columns import EXACT, Floats, Ints

MAX_LAYOUTS = 8
"""Maximum number of groups per call, one per set of signals; beyond it, all readings form one group, with NaN
for absent signals."""


class Group(NamedTuple):
    """Readings with the same signals, in the order of their messages."""

    of: Ints
    """Of each reading, the place of its message among those that were given."""
    ts_ms: Ints
    names: tuple[str, ...]
    values: Floats
    """A row for each reading, a column for each name; bool: 0 or 1. NaN: the reading has no such signal. Each
    has one at least."""


class Decoded(NamedTuple):
    groups: list[Group]
    rest: list[int]
    """Places of the messages that are not plain, none of whose readings is in a group."""


def decode(class_name: str, bodies: Sequence[bytes]) -> Decoded:
    """The readings of messages of units of one class, whatever their signals can hold: that is for
    `check_columns`."""
    form = _form(class_name)
    if form is None:
        return Decoded([], list(range(len(bodies))))
    found, rest = _parsed(form.decode, bodies)
    if not found:
        return Decoded([], rest)
    places = np.delete(np.arange(len(bodies)), rest) if rest else np.arange(len(bodies))
    readings, of, bad = found, places, []
    if list in set(map(type, found)):
        lists = [each if type(each) is list else (each,) for each in found]
        counts = np.array(list(map(len, lists)))
        readings, of = list(chain.from_iterable(lists)), np.repeat(places, counts)
        bad = places[counts == 0].tolist()
    ts, values = form.columns(readings)
    keys = (values == values).sum(axis=1)
    good = (keys > 0) & (np.abs(ts) < EXACT)
    if not good.all():
        bad += of[~good].tolist()
    bad += _twice([bodies[place] for place in places.tolist()] if rest else bodies, places, of, keys)
    if bad:
        kept = ~np.isin(of, bad)
        of, ts, values = of[kept], ts[kept], values[kept]
        rest = sorted({*rest, *bad})
    if not len(of):
        return Decoded([], rest)
    return Decoded([*_groups(form.names, of, np.floor(ts).astype(np.int64), values)], rest)


def _parsed(parse: Callable[[bytes], Any], bodies: Sequence[bytes]) -> tuple[list[Any], list[int]]:
    """Parsed messages, and the indices of those that cannot be parsed."""
    found: list[Any] = []
    rest: list[int] = []
    left = iter(bodies)
    while True:
        try:
            for each in map(parse, left):
                found.append(each)  # noqa: PERF402  # what came before an error is kept
            return found, rest
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            rest.append(len(found) + len(rest))


def _twice(bodies: Sequence[bytes], places: Ints, of: Ints, keys: NDArray[np.int64]) -> list[int]:
    """Places of the messages that hold a key twice. Only keys have quotes here, two each (no signal's name
    has an escaped one), and each reading has at least those that were found in it."""
    text = np.frombuffer(b"".join(bodies), dtype=np.uint8)
    if np.count_nonzero(text == ord('"')) == 2 * int(keys.sum() + len(keys)):
        return []
    wanted = np.bincount(of, weights=keys + 1, minlength=int(places[-1]) + 1)[places]
    quotes = np.array([body.count(b'"') for body in bodies])
    return [int(place) for place in places[quotes != 2 * wanted]]


def _groups(names: tuple[str, ...], of: Ints, ts_ms: Ints, values: Floats) -> Iterator[Group]:
    """`values`: of all names, NaN for what is absent."""
    present = values == values
    masks: list[Any] = [slice(None)]
    if not (present == present[0]).all():
        codes = np.ascontiguousarray(np.packbits(present, axis=1))
        _, firsts, which = np.unique(
            codes.view(np.dtype((np.void, codes.shape[1]))).ravel(), return_index=True, return_inverse=True
        )
        if len(firsts) <= MAX_LAYOUTS:
            masks = [which == n for n in range(len(firsts))]
    for rows in masks:
        columns = np.flatnonzero(present[rows].any(axis=0))
        picked = values[rows] if len(columns) == len(names) else values[rows][:, columns]
        yield Group(of[rows], ts_ms[rows], tuple([names[n] for n in columns]), picked)


class _Form:
    """A class's readings as msgspec parses them, signals that are absent as NaN; and all their numbers by one
    encoding into MessagePack, where each takes nine bytes at a fixed position (a bool: one byte)."""

    def __init__(self, names: Sequence[str], bools: Sequence[bool]) -> None:
        self.names = tuple(names)
        fields: list[tuple[str, Any, Any]] = [
            (f"f{n}", bool, None) if is_bool else (f"f{n}", float, np.nan) for n, is_bool in enumerate(bools)
        ]
        reading = msgspec.defstruct(
            "reading",
            [("ts", float), *fields],
            rename={f"f{n}": name for n, name in enumerate(names)},
            forbid_unknown_fields=True,
            gc=False,
        )
        self.decode = msgspec.json.Decoder(reading | list[reading]).decode  # type: ignore[valid-type]
        self._encode = msgspec.msgpack.Encoder().encode
        sample = self._encode(reading(0.0, *(None if is_bool else 0.0 for is_bool in bools)))
        self._size = len(sample)
        at = 3 if len(fields) > 14 else 1  # a map of more than 15 has its size in two bytes
        ends: list[int] = []
        for name, is_bool in zip(("ts", *names), (False, *bools), strict=True):
            at += len(msgspec.msgpack.encode(name)) + (1 if is_bool else 9)
            ends.append(at)
        assert at == self._size
        isbool = np.array(bools, dtype=bool)
        self._floats, self._bools = np.flatnonzero(~isbool), np.flatnonzero(isbool)
        places = np.array(ends)
        self._float_at = np.concatenate((places[:1], places[1:][~isbool])) - 8
        self._bool_at = places[1:][isbool] - 1

    def columns(self, readings: list[Any]) -> tuple[Floats, Floats]:
        """Times, and values."""
        packed = self._encode(readings)
        count, size = len(readings), self._size
        at = len(packed) - count * size
        numbers = np.ndarray((count, size - 7), ">f8", packed, at, (size, 1))[:, self._float_at].astype(float)
        if not len(self._bools):
            return numbers[:, 0], numbers[:, 1:]
        values = np.empty((count, len(self.names)))
        values[:, self._floats] = numbers[:, 1:]
        values[:, self._bools] = _BOOLS[np.ndarray((count, size), np.uint8, packed, at)[:, self._bool_at]]
        return numbers[:, 0], values


_BOOLS = np.full(256, np.nan)
_BOOLS[0xC2], _BOOLS[0xC3] = 0.0, 1.0


@lru_cache(maxsize=1024)
def _form(class_name: str) -> _Form | None:
    class_ = CATALOGUE.get(class_name)
    if class_ is None:
        return None
    return _Form(
        [signal.name for signal in class_.signals], [signal.type == "bool" for signal in class_.signals]
    )
