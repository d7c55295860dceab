"""Plain JSON telemetry of hand-made devices: `{"ts": <ms>, "<signal>": value, …}` or a list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from qilu_contract.errors import BadReading, Reason
from qilu_contract.readings import MAX_TIME_MS, Reading, Value

_decoder = msgspec.json.Decoder()
_TYPES = frozenset((float, int, bool))


def decode(unit: str, body: bytes) -> list[Reading | BadReading]:
    """The readings of one message, each good or refused by itself.

    Raises BadReading: bad_payload when the body is not JSON or an empty list, not_finite when the reason is a
    number that JSON cannot say (NaN, Infinity, 1e999).
    """
    try:
        content = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        unsayable = "out of range" in str(error) or b"NaN" in body or b"Infinity" in body
        reason = Reason.NOT_FINITE if unsayable else Reason.BAD_PAYLOAD
        raise BadReading(reason, f"not JSON: {error}") from error
    items = content if isinstance(content, list) else [content]
    if not items:
        raise BadReading(Reason.BAD_PAYLOAD, "an empty list holds no reading")
    return [_reading(unit, item) for item in items]


def _reading(unit: str, item: Any) -> Reading | BadReading:
    if not isinstance(item, dict):
        return BadReading(
            Reason.BAD_PAYLOAD,
            f'a reading is an object {{"ts": ms, "signal": value}}, not {type(item).__name__}',
        )
    ts = item.pop("ts", None)
    if ts is None:
        return BadReading(Reason.BAD_TIMESTAMP, '"ts" is missing: milliseconds since 1970, UTC')
    if not isinstance(ts, int) or isinstance(ts, bool) or not 0 <= ts <= MAX_TIME_MS:
        return BadReading(
            Reason.BAD_TIMESTAMP, f'"ts" is {str(ts)[:40]}: use whole milliseconds since 1970, UTC'
        )
    if not item:
        return BadReading(Reason.BAD_PAYLOAD, "a reading holds at least one signal beside ts")
    if not _TYPES.issuperset(map(type, item.values())):
        name, value = next(pair for pair in item.items() if type(pair[1]) not in _TYPES)
        return BadReading(
            Reason.WRONG_TYPE, f"{name[:60]!r} is {type(value).__name__}: use a number or a boolean"
        )
    return Reading(unit, ts, item)


def encode(readings: Sequence[tuple[int, Mapping[str, Value]]]) -> bytes:
    """One message of (ts_ms, values): an object for one reading, a list for several."""
    items = [{"ts": ts_ms, **values} for ts_ms, values in readings]
    return msgspec.json.encode(items[0] if len(items) == 1 else items)
