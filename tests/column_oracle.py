"""The outcome of a message on the plain path: decoded and checked alone, one reading after the other. The
oracle for every path that decodes many messages at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading, Value
from qilu_contract.wire import json_payload
from qilu_gateway.read.checking import SIGNALS, check
from qilu_gateway.read.decoded import Decoded


@dataclass
class Outcome:
    """Of one message; `remarks`: kind, first detail, how many."""

    readings: list[tuple[int, dict[str, Value]]] = field(default_factory=list)
    refused: list[tuple[Reason, str]] = field(default_factory=list)
    remarks: dict[Remark, tuple[str, int]] = field(default_factory=dict)

    def remark(self, kind: Remark, detail: str) -> None:
        first, count = self.remarks.get(kind, (detail, 0))
        self.remarks[kind] = first, count + 1

    def refuse(self, bad: BadReading) -> None:
        self.refused.append((bad.reason, bad.detail))

    @property
    def is_plain(self) -> bool:
        """All of it is stored, and there is nothing to say about it."""
        return bool(self.readings) and not self.refused and not self.remarks


def of_readings(class_name: str, readings: Iterable[Reading], latest_ms: int, into: Outcome) -> None:
    for reading in readings:
        said: list[tuple[Remark, str]] = []
        try:
            values = check(
                reading, SIGNALS[class_name], latest_ms, lambda *each, said=said: said.append(each)
            )
        except BadReading as bad:
            into.refuse(bad)
            continue
        into.readings.append((reading.ts_ms, values))
        for kind, detail in said:
            into.remark(kind, detail)


def of_decoded(class_name: str, decoded: Decoded, latest_ms: int) -> Outcome:
    """The result of the gateway's decoder for one message, checked."""
    found = Outcome(remarks=dict(decoded.remarks))
    for bad in decoded.refused:
        found.refuse(bad)
    of_readings(class_name, decoded.readings, latest_ms, found)
    return found


def of_json(class_name: str, body: bytes, receipt_ms: int, latest_ms: int) -> Outcome:
    found = Outcome()
    try:
        items = json_payload.decode("u", body, lambda: receipt_ms)
    except BadReading as bad:
        found.refuse(bad)
        return found
    for item in items:
        if item is None:
            found.remark(Remark.NO_VALUE, "every value is null")
        elif isinstance(item, BadReading):
            found.refuse(item)
        else:
            of_readings(class_name, [item], latest_ms, found)
    return found


def sorted_readings(readings: Iterable[tuple[int, dict[str, Any]]]) -> list[str]:
    """To compare: values by their type and their last bit, those of one time in their order."""
    return [
        f"{ts_ms} {sorted(values.items())!r}" for ts_ms, values in sorted(readings, key=lambda each: each[0])
    ]
