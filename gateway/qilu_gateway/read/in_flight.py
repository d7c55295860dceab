"""What was taken from the broker and is not durable yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading
from qilu_contract.storage import BORN, Point
from qilu_contract.wire import json_payload

from qilu_gateway.admit.units import Admitted
from qilu_gateway.metrics import Counters
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import BirthTable
from qilu_gateway.read.decoded import Decoded
from qilu_gateway.read.edge_nodes import SessionRow
from qilu_gateway.settle.dead_letters import DeadLetter
from qilu_gateway.write.receipts import Receipt


class InFlight:
    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self._arrivals: deque[Arrival] = deque()
        self.messages = 0
        """InFlightMessage and not settled."""
        self.bytes = 0
        """Of their payloads."""
        self.progress = asyncio.Event()

    def begin(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self.messages += len(arrival.messages)
        self.bytes += arrival.bytes

    def accept(self, readings: int) -> None:
        """So many are taken over; or fewer than was thought."""
        self.counters.accepted += readings
        self.counters.in_flight += readings

    def settle(self, arrival: Arrival, places: list[int]) -> None:
        self.messages -= len(places)
        self.bytes -= arrival.settle(places)
        self.progress.set()

    async def move(self) -> None:
        """Wait until something is settled."""
        self.progress.clear()
        await self.progress.wait()

    def oldest_s(self) -> float:
        """How long the message that was taken first among those in flight has waited."""
        while self._arrivals and not self._arrivals[0].unsettled:
            self._arrivals.popleft()
        return time.monotonic() - self._arrivals[0].received_s if self._arrivals else 0.0


class InFlightMessage(msgspec.Struct, eq=False):
    """A message that was taken apart by itself, until it is acknowledged."""

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
    """The units of measurement that the birth gives."""
    death: bool = False
    sessions: list[SessionRow] = []
    """What it changes about its edge node or device; kept with it."""
    retained: bool = False
    history: bool = False
    arrival: Arrival | None = None
    """With which others it came, and its place among these; None when nobody waits for its
    acknowledgement."""
    place: int = 0
    admitted: Admitted | None = None
    points: list[Point] = []
    refused: dict[Reason, tuple[str, int]] = {}
    """Readings refused, by reason, with the first one's detail."""
    remarks: dict[Remark, tuple[str, int]] = {}
    """Readings stored about which the unit's owner is told something, likewise."""
    receipt: Receipt | None = None
    """When it was received, if its reading has no time of its own."""
    ended: asyncio.Future[frozenset[Reason]] | None = None
    """Somebody waits for what becomes of it: why readings of it were refused."""

    @property
    def weight(self) -> int:
        return len(self.readings) or 1

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
        """Let the newest of a birth's points say when the birth was said: at its sample's time, when the
        birth gives no time or one that cannot be."""
        if self.points:
            place = max(range(len(self.points)), key=lambda at: self.points[at].ts_ms)
            point, said_ms = self.points[place], birth.said_ms
            if said_ms is None or not point.ts_ms <= said_ms <= latest_ms:
                said_ms = point.ts_ms
            self.points[place] = point._replace(fields={**point.fields, BORN: said_ms})

    def letters(self) -> list[DeadLetter]:
        payload = self.payload
        if self.receipt is not None:  # taken again, it must not get another time
            payload = json_payload.with_time(payload, self.receipt.ts_ms)
        return [
            DeadLetter(
                reason,
                detail,
                self.topic,
                payload,
                count,
                self.unit,
                self.dup,
                replayable=not (self.retained and reason is Reason.NO_BIRTH),
            )
            for reason, (detail, count) in self.refused.items()
        ]


def latest_ms(points: Sequence[Point]) -> int:
    if len(points) == 1:  # as nearly always
        return points[0].ts_ms
    return max(point.ts_ms for point in points)
