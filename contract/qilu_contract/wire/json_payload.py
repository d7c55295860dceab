"""Plain JSON telemetry of hand-made devices: one reading or a list of them.

A reading is `{"ts": time, "<signal>": value, …}` or `{"ts": time, "values": {"<signal>": value, …}}`. `ts` is
in milliseconds since 1970 or ISO 8601 with an offset; a message of one reading may leave it out, and then the
time of receipt is meant. `null` means absent, everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from qilu_contract.errors import BadReading, Reason
from qilu_contract.readings import Reading, Value

_decoder = msgspec.json.Decoder()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TIME_NAMES = frozenset(("ts", "ts_ms", "time", "timestamp", "datetime", "date"))
"""Names under which a device means a time. Such a reading must not get the time of receipt instead."""
MAX_SHOWN = 40
_TIMES = 'use milliseconds since 1970 or ISO 8601 with an offset, like "2026-01-31T08:00:00+08:00"'


class _Twice(NamedTuple):
    """Stands in for different values of one key: the first two, as text."""

    first: str
    second: str


def decode(
    unit: str, body: bytes, receipt: Callable[[], int] | None = None
) -> list[Reading | BadReading | None]:
    """The readings of one message, each good or refused by itself; None for one that is all nulls.

    Values are of any JSON type: whether a signal can hold them is for the caller to judge. `receipt` is
    called at most once, for the time of receipt; without it, a reading that has no time is refused.

    Raises BadReading(bad_payload) when the body is not JSON, or an empty list.
    """
    content = _content(body)
    items = content if isinstance(content, list) else [content]
    if not items:
        raise BadReading(Reason.BAD_PAYLOAD, "an empty list holds no reading")
    if isinstance(content, list):
        receipt = None
    found: list[Reading | BadReading | None] = []
    for item in items:
        try:
            found.append(_reading(unit, item, receipt))
        except BadReading as bad:
            found.append(bad)
    return found


def _content(body: bytes) -> Any:
    """Raises BadReading."""
    try:
        content = _decoder.decode(body)
        # Each key brings a colon: if there are no more colons than keys, no key is there twice.
        if body.count(b":") == _keys(content):
            return content
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # Python's own parser reports duplicate keys, and accepts NaN and 1e999 as one bad value in a message
        # that may hold good ones.
        return json.loads(body.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BadReading(Reason.BAD_PAYLOAD, f"not JSON: {error}") from error


def _keys(content: Any) -> int:
    if type(content) is dict:
        nested = [value for value in content.values() if type(value) in (dict, list)]
        return len(content) + (sum(map(_keys, nested)) if nested else 0)
    return sum(map(_keys, content)) if type(content) is list else 0


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        _put(found, name, value)
    return found


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    before = values.get(name)
    if before is None:
        values[name] = value
    elif not isinstance(before, _Twice) and value is not None:
        first, second = describe(before), describe(value)
        if first != second or isinstance(value, dict | list):
            values[name] = _Twice(first, second)


def describe(value: Any) -> str:
    """A value of a message, as it is shown to people: short, and not taken apart, however deep it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _reading(unit: str, item: Any, receipt: Callable[[], int] | None) -> Reading | None:
    """Raises BadReading."""
    if not isinstance(item, dict):
        raise BadReading(
            Reason.BAD_PAYLOAD,
            f'a reading is an object {{"ts": ms, "signal": value}}, not {type(item).__name__}',
        )
    nested = item.get("values")
    if isinstance(nested, dict):
        del item["values"]
        for name, value in nested.items():
            _put(item, name, value)
    ts = item.pop("ts", None)
    if not item:
        raise BadReading(Reason.BAD_PAYLOAD, "a reading holds at least one signal beside ts")
    for name, value in item.items():
        if isinstance(value, _Twice):
            raise BadReading(
                Reason.BAD_PAYLOAD,
                f"{name[:60]!r} is there twice: {value.first} and {value.second}",
            )
    values = {name: value for name, value in item.items() if value is not None}
    if ts is not None:
        ts_ms = _time_ms(ts)
    elif other := next((name for name in values if name.casefold() in _TIME_NAMES), None):
        raise BadReading(Reason.BAD_TIMESTAMP, f'{other!r} is not understood as a time: call it "ts"')
    elif not values:
        return None
    elif receipt is None:
        raise BadReading(
            Reason.BAD_TIMESTAMP,
            '"ts" is missing: only a message of one reading, which is not retained, may leave it out',
        )
    else:
        ts_ms = receipt()
    return Reading(unit, ts_ms, values) if values else None


def _time_ms(ts: Any) -> int:
    """Raises BadReading."""
    if isinstance(ts, str):
        try:
            moment = datetime.fromisoformat(ts)
        except ValueError:
            raise BadReading(Reason.BAD_TIMESTAMP, f'"ts" is the text {describe(ts)}: {_TIMES}') from None
        if moment.tzinfo is None:
            raise BadReading(
                Reason.BAD_TIMESTAMP, f'"ts" {describe(ts)} has no offset from UTC: end it with Z or +08:00'
            )
        return (moment - _EPOCH) // _MILLISECOND
    if (isinstance(ts, int) and not isinstance(ts, bool)) or (isinstance(ts, float) and math.isfinite(ts)):
        return math.floor(ts)
    raise BadReading(Reason.BAD_TIMESTAMP, f'"ts" is {describe(ts)}: {_TIMES}')


def encode(readings: Sequence[tuple[int, Mapping[str, Value]]]) -> bytes:
    """One message of (ts_ms, values): an object for one reading, a list for several. Raises ValueError for a
    value that JSON cannot say."""
    for _, values in readings:
        for name, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is {value}, which JSON cannot say")
    items = [{"ts": ts_ms, **values} for ts_ms, values in readings]
    return msgspec.json.encode(items[0] if len(items) == 1 else items)


def count(body: bytes) -> int:
    """Number of readings in a message. Raises msgspec.DecodeError, RecursionError."""
    content = msgspec.json.decode(body, type=list[msgspec.Raw] | msgspec.Raw)
    return max(1, len(content)) if isinstance(content, list) else 1


def with_time(body: bytes, receipt_ms: int) -> bytes:
    """A message that `decode` gave its time of receipt, with that time written into it."""
    return b'{"ts":%d,%s' % (receipt_ms, body.lstrip().removeprefix(b"{"))
