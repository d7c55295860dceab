"""The plain path: decodes one message at a time. It handles what the fast path leaves, and replays; tests
compare the fast path with it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog
from qilu_common.backoff import Backoff
from qilu_common.mqtt.messages import DUP, RETAINED
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading
from qilu_contract.wire import clock

from qilu_gateway.admit.units import Admitted
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import Births
from qilu_gateway.read.control import Control
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.read.edge_nodes import Followed
from qilu_gateway.read.in_flight import InFlight, InFlightMessage
from qilu_gateway.read.receipts import Receipt, Receipts
from qilu_gateway.read.structures import flatten_all, has_structures, signal_names

log = structlog.get_logger()
_T = TypeVar("_T")


class PlainReader:
    def __init__(
        self, decoder: Decoder, births: Births, control: Control, receipts: Receipts, in_flight: InFlight
    ) -> None:
        self._decoder, self.births, self._control = decoder, births, control
        self._receipts, self._in_flight = receipts, in_flight

    async def read(
        self, arrival: Arrival, place: int, followed: bool, *, may_wait: bool = True, refusal: str = ""
    ) -> InFlightMessage:
        """Decode a message of an arrival and act on its control content. `followed`: its sequence number has
        been checked already. `may_wait`, `refusal`: see `Decoder.decode`."""
        messages = arrival.messages
        topic = messages.topics[place].decode("utf-8", "replace")
        payload, mid, flags = messages.payloads[place], messages.mids[place], messages.flags[place]
        dup, retained = flags & DUP != 0, flags & RETAINED != 0
        receipts: list[Receipt] = []

        def receive() -> int:
            receipts.append(self._receipts.receive(topic, payload, mid, dup))
            return receipts[0].ts_ms

        decoded = await when_readable(
            lambda: self._decoder.decode(
                topic,
                payload,
                dup=dup,
                retained=retained,
                lane=arrival.lane,
                receipt=receive,
                followed=followed,
                may_wait=may_wait,
                refusal=refusal,
            )
        )
        self._control.heed(decoded, payload)
        message = InFlightMessage.of(topic, payload, dup, decoded)
        message.receipt = receipts[0] if receipts else None
        message.arrival, message.place, message.retained = arrival, place, retained
        arrival.counts[place] = message.count
        return message

    async def read_again(self, topic: str, payload: bytes, past_ms: int) -> InFlightMessage:
        """Decode the message of a dead letter that was first received at `past_ms`. No births or sequence
        numbers are learned from it. The caller waits for `ended`."""
        decoded = await when_readable(lambda: self._decoder.decode(topic, payload, dup=True, past_ms=past_ms))
        ended = asyncio.get_running_loop().create_future()
        return InFlightMessage.of(topic, payload, True, decoded, ended)

    def judge(self, message: InFlightMessage, admitted: Admitted | None) -> None:
        """Check by the owner whether its readings may be stored and its birth or death accepted."""
        try:
            if admitted is None:
                raise BadReading(Reason.UNKNOWN_UNIT, f"{message.unit} is not registered, or is retired")
            admitted.check_owner(message.county, message.enterprise)
        except BadReading as bad:
            self._refuse(message, bad)
            if message.birth is not None:
                self.births.forget(message.birth)
                message.birth = None
            message.death, message.sessions = False, []
            return
        message.admitted = admitted
        message.units = signal_names(admitted.class_name, message.units)
        if has_structures(message.readings):
            self._flatten(message, admitted.class_name)

    def _flatten(self, message: InFlightMessage, class_name: str) -> None:
        """Replace readings with Templates and DataSets by the readings that these hold, which may be more."""
        found = flatten_all(class_name, message.readings, message.remark)
        more = len(found) - len(message.readings)
        message.readings = [each for each in found if isinstance(each, Reading)]
        for each in found:
            if isinstance(each, BadReading):
                message.refuse(each)
        if not found:
            message.remark(Remark.NO_VALUE, "every value is null")
        self._count(message, more)

    def _count(self, message: InFlightMessage, readings: int) -> None:
        """Count further readings of a message."""
        message.count += readings
        self._in_flight.accept(readings)
        if message.arrival is not None:
            message.arrival.counts[message.place] += readings

    def _refuse(self, message: InFlightMessage, bad: BadReading) -> None:
        if readings := len(message.readings) + message.nameless:
            if message.nameless:
                del message.refused[Reason.NO_BIRTH]
            message.refuse(bad, readings)
        elif message.death and bad.reason is Reason.UNKNOWN_UNIT:
            self._in_flight.counters.ignored_deaths += 1  # the death of a retired unit
        elif not message.count:  # counts as one reading, like a message that cannot be decoded
            message.refuse(bad)
            self._count(message, 1)

    def follow(self, found: Iterable[Followed]) -> None:
        """Act on the sequence numbers of messages that were decoded by column."""
        self._control.follow(found)

    def latest_ms(self) -> int:
        """Readings later than this are refused."""
        return self._control.clock.now_ms() + clock.MAX_AHEAD_MS


async def when_readable(work: Callable[[], _T]) -> _T:
    """Call `work` until births can be read, because the meaning of an alias must not be guessed; returns its
    result."""
    backoff = Backoff(most_s=2.0)
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            log.warning("state file cannot be read: messages wait", error=str(error))
            await asyncio.sleep(backoff.delay_s())
