"""Kafka messages of stored readings: the key is the unit's id, the value is JSON.

{"ts": 1700000000000, "class": "motor", "city": "3702", "county": "370202", "industry": "C34",
 "enterprise": "370202-e00001", "unit": "370202-motor-0000001", "values": {"speed": 1480.0, …}}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import TypedDict

import msgspec
from qilu_contract.columns import Columns
from qilu_contract.readings import Value
from qilu_contract.storage import BORN, UNIT_TAGS, Point


class Message(TypedDict):
    """As `Producer.produce_batch` takes it."""

    key: str
    value: bytes


_encode = msgspec.json.Encoder().encode


def messages_of(points: Iterable[Point], columns: Sequence[Columns]) -> Iterator[Message]:
    """A message for each reading. The time of a birth is left out, and points that hold nothing else."""
    for point in chain(points, chain.from_iterable(each.points() for each in columns)):
        values: dict[str, Value] = {name: value for name, value in point.fields.items() if name != BORN}
        if values:
            body: dict[str, object] = {"ts": point.ts_ms, "class": point.measurement}
            body.update(zip(UNIT_TAGS, point.tags, strict=True))
            body["values"] = values
            yield {"key": point.tags[-1], "value": _encode(body)}
