"""Tracks messages that were taken from the broker and are not durable yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec
from qilu_contract.columns import Ints
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading
from qilu_contract.storage import BORN, Point

from qilu_gateway.admit.units import Admitted
from qilu_gateway.metrics import Counters
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import BirthTable
from qilu_gateway.read.decoded import Decoded
from qilu_gateway.read.edge_nodes import SessionRow
from qilu_gateway.read.receipts import Receipt


class InFlight:
    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self._arrivals: deque[Arrival] = deque()
        self.messages = 0
        """Messages in flight."""
        self.bytes = 0
        """Bytes of their payloads."""
        self.progress = asyncio.Event()

    def begin(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self.messages += len(arrival.messages)
        self.bytes += arrival.bytes

    def accept(self, readings: int) -> None:
        """Count accepted readings; negative to correct an earlier count."""
        self.counters.accepted += readings
        self.counters.in_flight += readings

    def settle(self, arrival: Arrival, places: Ints) -> None:
        self.messages -= len(places)
        self.bytes -= arrival.settle(places)
        self.progress.set()

    async def move(self) -> None:
        """Wait until a message is settled."""
        self.progress.clear()
        await self.progress.wait()

    def oldest_s(self) -> float:
        """Age of the oldest message in flight, except those that wait for a birth."""
        while self._arrivals and not self._arrivals[0].unsettled:
            self._arrivals.popleft()
        if self._arrivals and self._arrivals[0].unborn:  # settled ones behind it must not pile up
            self._arrivals = deque([arrival for arrival in self._arrivals if arrival.unsettled])
        busy = (arrival for arrival in self._arrivals if arrival.unsettled > arrival.unborn)
        oldest = next(busy, None)
        return time.monotonic() - oldest.received_s if oldest is not None else 0.0


class InFlightMessage(msgspec.Struct, eq=False):
    """A message that was decoded by itself, until it is acknowledged."""

    topic: str
    payload: bytes
    dup: bool
    county: str
    enterprise: str
    unit: str | None
    readings: list[Reading]
    count: int
    """Readings, good and bad."""
    birth: BirthTable | None = None
    units: dict[str, str] = {}
    """Units of measurement from the birth, by signal name."""
    death: bool = False
    sessions: list[SessionRow] = []
    """Change to its edge node or device; made durable with it."""
    unborn: bool = False
    """It was not decoded, because it has to wait for its birth."""
    retained: bool = False
    history: bool = False
    arrival: Arrival | None = None
    """The arrival it belongs to, and its index there; None if it need not be acknowledged."""
    place: int = 0
    admitted: Admitted | None = None
    points: list[Point] = []
    refused: dict[Reason, tuple[str, int]] = {}
    """Refused readings by reason, with the detail of the first."""
    remarks: dict[Remark, tuple[str, int]] = {}
    """Remarks for the unit's owner on stored readings, by kind, with the detail of the first."""
    receipt: Receipt | None = None
    """Time of receipt, if its reading has no timestamp."""
    ended: asyncio.Future[frozenset[Reason]] | None = None
    """Future of the reasons why its readings were refused; set once it is settled."""

    @property
    def weight(self) -> int:
        return len(self.readings) or 1

    @property
    def nameless(self) -> int:
        """Readings refused because no birth gives names to their metrics; the unit's registration is checked
        first. Not those of retained messages, which are refused with every birth."""
        return 0 if self.retained else self.refused.get(Reason.NO_BIRTH, ("", 0))[1]

    @classmethod
    def of(
        cls,
        topic: str,
        payload: bytes,
        dup: bool,
        decoded: Decoded,
        ended: asyncio.Future[frozenset[Reason]] | None = None,
    ) -> InFlightMessage:
        message = cls(
            topic=topic,
            payload=payload,
            dup=dup,
            county=decoded.county,
            enterprise=decoded.enterprise,
            unit=decoded.unit,
            readings=decoded.readings,
            count=len(decoded.readings) + len(decoded.refused),
            birth=decoded.birth,
            units=decoded.units,
            death=decoded.death,
            sessions=decoded.sessions,
            remarks=decoded.remarks,
            ended=ended,
            history=decoded.history,
            unborn=decoded.unborn,
        )
        for bad in decoded.refused:
            message.refuse(bad)
        return message

    def refuse(self, bad: BadReading, readings: int = 1) -> None:
        detail, count = self.refused.get(bad.reason, (bad.detail, 0))
        self.refused[bad.reason] = (detail, count + readings)

    def remark(self, kind: Remark, detail: str) -> None:
        first, count = self.remarks.get(kind, (detail, 0))
        self.remarks[kind] = (first, count + 1)

    def mark_birth(self, birth: BirthTable, latest_ms: int) -> None:
        """Add the birth time to the newest point of a birth: the sample's time if the birth has no valid
        time."""
        if self.points:
            place = max(range(len(self.points)), key=lambda at: self.points[at].ts_ms)
            point, said_ms = self.points[place], birth.said_ms
            if said_ms is None or not point.ts_ms <= said_ms <= latest_ms:
                said_ms = point.ts_ms
            self.points[place] = point._replace(fields={**point.fields, BORN: said_ms})


def latest_ms(points: Sequence[Point]) -> int:
    if len(points) == 1:  # the usual case
        return points[0].ts_ms
    return max(point.ts_ms for point in points)
