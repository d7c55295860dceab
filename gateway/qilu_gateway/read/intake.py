"""First stage: messages are taken over, decoded and admitted, and gathered into batches. What waits for the
platform's word on its unit is held here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import structlog
from qilu_common.backoff import Backoff
from qilu_common.mqtt.messages import DUP, RETAINED, Messages
from qilu_contract.errors import BadReading, Reason
from qilu_contract.wire import clock

from qilu_gateway.admit.admission import Admission
from qilu_gateway.admit.units import Admitted, Units
from qilu_gateway.connect.session import Session
from qilu_gateway.metrics import Counters
from qilu_gateway.read.arrivals import Arrival, Known, Window
from qilu_gateway.read.births import Births
from qilu_gateway.read.columnar import Reader
from qilu_gateway.read.control import Control
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.read.in_flight import InFlight
from qilu_gateway.read.reads import Found, Held, Read
from qilu_gateway.read.taken import Taken
from qilu_gateway.write.batching import Batcher
from qilu_gateway.write.receipts import Receipt, Receipts

log = structlog.get_logger()

MAX_HELD_BYTES = 256 * 1024 * 1024
"""Payloads of messages that are not durable yet; at the bound nothing more is taken until some are."""
AT_ONCE = 256
"""Messages decoded the plain way in one turn of the event loop: some milliseconds of work."""
Item = Taken | Read
_T = TypeVar("_T")


class Intake:
    """`take` is called with messages in the order in which they came. Everything is done in that order, but
    for units that wait."""

    def __init__(
        self,
        sessions: dict[int, Session],
        units: Units,
        births: Births,
        admission: Admission,
        control: Control,
        receipts: Receipts,
        counters: Counters,
        in_flight: InFlight,
        batcher: Batcher[Item],
        *,
        max_payload_bytes: int,
        window: int,
    ) -> None:
        self._sessions, self._units, self._births, self._admission = sessions, units, births, admission
        self._control, self._receipts, self._counters = control, receipts, counters
        self._in_flight, self._batcher = in_flight, batcher
        self._decoder = Decoder(births, max_payload_bytes)
        self._reader = Reader(units, births, max_payload_bytes)
        self._window = Window(window)
        self._waiting: dict[str, list[Taken | Held]] = {}
        self._waiting_messages = 0
        self._turn = asyncio.Lock()

    async def take(self, messages: Messages, epoch: int, lane: int = 0) -> None:
        """Take messages over, as the connection `epoch` delivered them; `lane` tells the sessions apart whose
        connections these are. Waits while too much is in flight."""
        counters = self._counters
        counters.messages += len(messages)
        counters.redelivered_messages += sum([flags & DUP != 0 for flags in messages.flags])
        again = self._window.again(messages, lane, epoch)
        if again:
            self._take_again(again, epoch)
            messages = messages.take(place for place in range(len(messages)) if place not in again)
        while self._in_flight.bytes > MAX_HELD_BYTES:
            await self._in_flight.move()
        if not messages.mids:
            return
        arrival = Arrival(messages, lane, epoch)
        if any(messages.mids):
            self._window.add(arrival)
        async with self._turn:
            self._in_flight.begin(arrival)
            await self._release(self._admission.pop_answers())
            await self._read(arrival, None)

    async def replay(self, topic: str, payload: bytes, past_ms: int) -> frozenset[Reason]:
        """Take the message of a dead letter that first came at `past_ms` again, as one that may have come
        before; returns why readings of it are refused now, once that and all else of it is durable. Births
        and sequence numbers of the past are not learned from it."""
        decoded = await self._when_readable(
            lambda: self._decoder.decode(topic, payload, dup=True, past_ms=past_ms)
        )
        if decoded.unit is not None:
            self._admission.distrust(decoded.unit)
        ended = asyncio.get_running_loop().create_future()
        taken = Taken.of(topic, payload, True, decoded, ended)
        await self._begin(taken)
        return await asyncio.shield(ended)

    async def release(self) -> None:
        """Let go on what waits for the platform, as it answers; for ever."""
        while True:
            await self._admission.answered.wait()
            async with self._turn:
                await self._release(self._admission.pop_answers())

    async def drain(self) -> None:
        """Return when all that is taken is brought to an end, except what waits for the platform."""
        self._batcher.hurry()
        while self._in_flight.messages > self._waiting_messages:
            await self._in_flight.move()

    def _take_again(self, again: dict[int, Known], epoch: int) -> None:
        """The connection broke before the broker knew that we have these messages."""
        for arrival, place in again.values():
            self._counters.redelivered += int(arrival.counts[place])
            if arrival.durable[place]:
                mid, _ = arrival.again[place]
                arrival.acknowledged[place] = self._sessions[arrival.lane].acknowledge(epoch, [mid])

    # -- the fast way

    async def _read(self, arrival: Arrival, which: Sequence[int] | None, *, followed: bool = False) -> None:
        latest_ms = self._control.clock.now_ms() + clock.MAX_AHEAD_MS
        if self._waiting:
            await self._make_way(arrival, which)
        found = await self._find(arrival, which, latest_ms, followed)
        if found.leading:
            for place in found.leading:
                await self._begin(await self._decode(arrival, place, False))
            leading = frozenset(found.leading)
            rest = [place for place in range(len(arrival.messages)) if place not in leading]
            found = await self._find(arrival, rest, latest_ms, followed)
        read, plain, held, sequence, births, _ = found
        self._counters.births += births
        for each in held:
            self._hold(each.topic.unit, each)
        held_readings = sum([int(arrival.counts[each.place]) for each in held])
        self._accept(read.weight + held_readings)
        self._refresh(read)
        for number, (place, is_followed) in enumerate(plain):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if sequence is not None and not is_followed:
                node = self._reader.node(arrival.messages.topics[place])
                self._control.follow(sequence.follow_until(node, place) if node is not None else ())
            await self._begin(await self._decode(arrival, place, is_followed))
        if sequence is not None:
            self._control.follow(sequence.follow_all())
        left = read if read.places else None
        while left is not None:
            part, left = left.split(await self._batcher.room())
            await self._batcher.add(part)

    async def _find(
        self, arrival: Arrival, which: Sequence[int] | None, latest_ms: int, followed: bool
    ) -> Found:
        return await self._when_readable(
            lambda: self._reader.read(arrival, which, latest_ms, self._may_wait, followed=followed)
        )

    def _may_wait(self, unit: str) -> bool:
        return not self._admission.is_unknown(unit)

    def _refresh(self, read: Read) -> None:
        fresh_s = self._admission.fresh_s()
        for group in read.groups:
            rows = group.columns.rows
            stale = self._units.checked_s[rows] < fresh_s
            if stale.any():
                self._admission.refresh(self._units.ids(rows[stale]))

    async def _make_way(self, arrival: Arrival, which: Sequence[int] | None) -> None:
        """A birth or death of a node is to come: what its units are held with is of the birth before."""
        if which is not None:
            return
        dirty = self._reader.born_or_dead(arrival.messages.topics)
        for items in list(self._waiting.values()) if dirty else ():
            for place, item in enumerate(items):
                if isinstance(item, Held) and (item.topic.group, item.topic.enterprise) in dirty:
                    items[place] = await self._taken(item)

    async def _taken(self, item: Taken | Held) -> Taken:
        """What is held, taken apart the plain way."""
        if isinstance(item, Taken):
            return item
        self._accept(-int(item.arrival.counts[item.place]))
        taken = await self._decode(item.arrival, item.place, True)
        self._accept(taken.count)
        return taken

    def _hold(self, unit: str, item: Taken | Held) -> None:
        self._waiting_messages += 1
        waiting = self._waiting.get(unit)
        if waiting is None:
            self._waiting[unit] = [item]
            self._admission.ask([unit])
        else:  # behind its predecessors
            waiting.append(item)

    async def _release(self, units: Iterable[str]) -> None:
        held: dict[Arrival, list[int]] = {}
        judged: list[Taken] = []
        for unit in units:
            items = self._waiting.pop(unit, None)
            if items is None:
                continue
            self._waiting_messages -= len(items)
            if not all(isinstance(item, Held) for item in items):  # they are written in their order
                items = [await self._taken(item) for item in items]
            for item in items:
                if isinstance(item, Held):
                    held.setdefault(item.arrival, []).append(item.place)
                    self._reader.learn(item.arrival.messages.topics[item.place], item.topic)
                else:
                    self._judge(item, self._admission.find(unit))
                    judged.append(item)
        for taken in judged:
            await self._batcher.add(taken)
        for arrival, places in sorted(held.items(), key=lambda item: item[0].number):
            places.sort()
            self._accept(-int(arrival.counts[places].sum()))
            arrival.counts[places] = 0
            await self._read(arrival, places, followed=True)

    def _accept(self, readings: int) -> None:
        self._counters.accepted += readings
        self._counters.in_flight += readings

    # -- the plain way

    async def _decode(self, arrival: Arrival, place: int, followed: bool) -> Taken:
        messages = arrival.messages
        topic = messages.topics[place].decode("utf-8", "replace")
        payload, mid, flags = messages.payloads[place], messages.mids[place], messages.flags[place]
        dup, retained = flags & DUP != 0, flags & RETAINED != 0
        receipts: list[Receipt] = []

        def receive() -> int:
            receipts.append(self._receipts.receive(topic, payload, mid, dup))
            return receipts[0].ts_ms

        decoded = await self._when_readable(
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
        taken = Taken.of(topic, payload, dup, decoded)
        taken.receipt = receipts[0] if receipts else None
        taken.arrival, taken.place, taken.retained = arrival, place, retained
        arrival.counts[place] = taken.count
        return taken

    async def _begin(self, taken: Taken) -> None:
        """Put it into a batch, unless it waits for the platform's word on its unit."""
        self._accept(taken.count)
        unit = taken.unit
        if unit is not None and (taken.readings or taken.birth or taken.death):
            if unit in self._waiting:
                self._hold(unit, taken)
                return
            admitted = self._admission.find(unit)
            if admitted is None and not self._admission.is_unknown(unit):
                self._hold(unit, taken)
                return
            self._judge(taken, admitted)
        await self._batcher.add(taken)

    def _judge(self, taken: Taken, admitted: Admitted | None) -> None:
        """Whether its readings may be stored, and its birth or death believed, as far as that hangs on whose
        they are."""
        try:
            if admitted is None:
                raise BadReading(Reason.UNKNOWN_UNIT, f"{taken.unit} is not registered, or is retired")
            admitted.check_owner(taken.county, taken.enterprise)
        except BadReading as bad:
            if taken.readings:
                taken.refuse(bad, len(taken.readings))
            elif taken.death and bad.reason is Reason.UNKNOWN_UNIT:
                self._counters.ignored_deaths += 1  # a unit that was retired says farewell
            elif not taken.count:  # it counts as one reading, like what cannot be decoded
                taken.refuse(bad)
                taken.count = 1
                if taken.arrival is not None:
                    taken.arrival.counts[taken.place] = 1
                self._accept(1)
            if taken.birth is not None:
                self._births.forget(taken.birth)
                taken.birth = None
            taken.death, taken.sessions = False, []
            return
        taken.admitted = admitted

    async def _when_readable(self, decode: Callable[[], _T]) -> _T:
        """What `decode` returns, tried until births can be read: what an alias means is not guessed."""
        backoff = Backoff(most_s=2.0)
        while True:
            try:
                return decode()
            except sqlite3.OperationalError as error:
                log.warning("state file cannot be read: messages wait", error=str(error))
                await asyncio.sleep(backoff.delay_s())
