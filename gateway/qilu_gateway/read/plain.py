"""Messages one at a time: what columns leave over, and what is taken again. Also what columns are compared
with."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import TypeVar

import structlog
from qilu_common.backoff import Backoff
from qilu_common.mqtt.messages import DUP, RETAINED
from qilu_contract.errors import BadReading, Reason
from qilu_contract.wire import clock

from qilu_gateway.admit.units import Admitted
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import Births
from qilu_gateway.read.control import Control
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.read.edge_nodes import Followed
from qilu_gateway.read.in_flight import InFlight, InFlightMessage
from qilu_gateway.write.receipts import Receipt, Receipts

log = structlog.get_logger()
_T = TypeVar("_T")


class PlainReader:
    def __init__(
        self, decoder: Decoder, births: Births, control: Control, receipts: Receipts, in_flight: InFlight
    ) -> None:
        self._decoder, self._births, self._control = decoder, births, control
        self._receipts, self._in_flight = receipts, in_flight

    async def read(self, arrival: Arrival, place: int, followed: bool) -> InFlightMessage:
        """A message of an arrival. What it says beside readings is heeded. `followed`: its sequence number is
        known already."""
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
            )
        )
        self._control.heed(decoded, payload)
        message = InFlightMessage.of(topic, payload, dup, decoded)
        message.receipt = receipts[0] if receipts else None
        message.arrival, message.place, message.retained = arrival, place, retained
        arrival.counts[place] = message.count
        return message

    async def read_again(self, topic: str, payload: bytes, past_ms: int) -> InFlightMessage:
        """The message of a dead letter, which came first at `past_ms`. Births and sequence numbers of the
        past are not learned from it. `ended` is to be waited for."""
        decoded = await when_readable(lambda: self._decoder.decode(topic, payload, dup=True, past_ms=past_ms))
        ended = asyncio.get_running_loop().create_future()
        return InFlightMessage.of(topic, payload, True, decoded, ended)

    def judge(self, message: InFlightMessage, admitted: Admitted | None) -> None:
        """Whether its readings may be stored, and its birth or death believed, as far as that hangs on whose
        they are."""
        try:
            if admitted is None:
                raise BadReading(Reason.UNKNOWN_UNIT, f"{message.unit} is not registered, or is retired")
            admitted.check_owner(message.county, message.enterprise)
        except BadReading as bad:
            self._refuse(message, bad)
            if message.birth is not None:
                self._births.forget(message.birth)
                message.birth = None
            message.death, message.sessions = False, []
            return
        message.admitted = admitted

    def _refuse(self, message: InFlightMessage, bad: BadReading) -> None:
        if message.readings:
            message.refuse(bad, len(message.readings))
        elif message.death and bad.reason is Reason.UNKNOWN_UNIT:
            self._in_flight.counters.ignored_deaths += 1  # a unit that was retired says farewell
        elif not message.count:  # it counts as one reading, like what cannot be decoded
            message.refuse(bad)
            message.count = 1
            if message.arrival is not None:
                message.arrival.counts[message.place] = 1
            self._in_flight.accept(1)

    def follow(self, found: Iterable[Followed]) -> None:
        """What sequence numbers of messages by column showed."""
        self._control.follow(found)

    def latest_ms(self) -> int:
        """Readings later than this are not believed."""
        return self._control.clock.now_ms() + clock.MAX_AHEAD_MS


async def when_readable(work: Callable[[], _T]) -> _T:
    """What `work` returns, tried until births can be read: what an alias means is not guessed."""
    backoff = Backoff(most_s=2.0)
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            log.warning("state file cannot be read: messages wait", error=str(error))
            await asyncio.sleep(backoff.delay_s())
