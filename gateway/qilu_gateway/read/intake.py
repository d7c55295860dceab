"""First stage: accepts, decodes and admits messages, and passes them to the batcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from qilu_common.mqtt.messages import DUP, Messages
from qilu_contract.errors import Reason

from qilu_gateway.admit.admission import Admission
from qilu_gateway.connect.session import Session
from qilu_gateway.read import unit_topics
from qilu_gateway.read.arrivals import Arrival, Known, Window
from qilu_gateway.read.batching import Batcher
from qilu_gateway.read.columnar import Reader
from qilu_gateway.read.in_flight import InFlight, InFlightMessage
from qilu_gateway.read.plain import PlainReader, when_readable
from qilu_gateway.read.reads import Found, Read
from qilu_gateway.read.unborn import Freed, Unborn
from qilu_gateway.read.waiting import Waiting

MAX_HELD_BYTES = 256 * 1024 * 1024
"""Maximum bytes of payloads in flight; at this bound intake waits (backpressure)."""
LOOK_EVERY_S = 1.0
AT_ONCE = 256
"""Messages decoded one at a time per turn of the event loop: some milliseconds of work."""
Item = InFlightMessage | Read


class Intake:
    """First stage of the pipeline. `take` is called with messages in the order of arrival and processes them
    in that order, except those that wait for the platform's answer about their unit, or for their birth."""

    def __init__(
        self,
        sessions: dict[int, Session],
        admission: Admission,
        reader: Reader,
        plain: PlainReader,
        in_flight: InFlight,
        batcher: Batcher[Item],
        windows: Mapping[int, int],
    ) -> None:
        """`windows`: the receive maximum of each lane: how many of its messages the broker may redeliver."""
        self._sessions, self._admission = sessions, admission
        self._reader, self._plain = reader, plain
        self._in_flight, self._batcher = in_flight, batcher
        self._window = Window(sum(windows.values()))
        self._waiting = Waiting(admission, plain, in_flight, self._heed)
        self.unborn = Unborn(plain.births, windows)
        self._freed: list[InFlightMessage] = []
        """Messages that no longer wait for their birth, decoded."""
        self._turn = asyncio.Lock()

    async def take(self, messages: Messages, epoch: int, lane: int = 0) -> None:
        """Accept messages that the connection `epoch` of the session `lane` delivered. Waits while too much
        is in flight."""
        counters = self._in_flight.counters
        counters.messages += len(messages)
        counters.redelivered_messages += sum(map(DUP.__and__, messages.flags)) // DUP
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
            await self._decode_freed(self.unborn.heard(arrival))
            await self._release(self._admission.pop_answers())
            if self._waiting.messages:
                await self._waiting.make_way(unit_topics.born_or_dead(arrival.messages.topics))
            await self._begin_freed()
            await self._read(arrival, None)

    async def replay(self, topic: str, payload: bytes, past_ms: int) -> frozenset[Reason]:
        """Replay the message of a dead letter that was first received at `past_ms`, as a possible redelivery.
        Returns the reasons why its readings are refused now, once the outcome is durable."""
        message = await self._plain.read_again(topic, payload, past_ms)
        if message.unit is not None:
            self._admission.distrust(message.unit)
        assert message.ended is not None
        await self._begin(message)
        return await asyncio.shield(message.ended)

    async def release(self) -> None:
        """Release held messages as the platform answers, until cancelled."""
        while True:
            await self._admission.answered.wait()
            async with self._turn:
                await self._release(self._admission.pop_answers())

    async def give_up(self) -> None:
        """Refuse messages that have waited for their birth for too long, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.unborn.messages:
                async with self._turn:
                    overdue = self.unborn.overdue(time.monotonic(), self._waiting.__contains__)
                    await self._decode_freed(overdue)
                    await self._begin_freed()

    async def drain(self) -> None:
        """Wait until all accepted messages are settled, except those that wait for the platform or a
        birth."""
        self._batcher.hurry()
        while self._in_flight.messages > self._waiting.messages + self.unborn.messages:
            await self._in_flight.move()

    def _take_again(self, again: dict[int, Known], epoch: int) -> None:
        """Handle redelivered messages: the connection broke before the broker received their PUBACKs."""
        for arrival, place in again.values():
            self._in_flight.counters.redelivered += int(arrival.counts[place])
            if arrival.durable[place]:
                mid, _ = arrival.again[place]
                arrival.acknowledged[place] = self._sessions[arrival.lane].acknowledge(epoch, [mid])

    async def _read(self, arrival: Arrival, which: Sequence[int] | None, *, followed: bool = False) -> None:
        latest_ms = self._plain.latest_ms()
        found = await self._find(arrival, which, latest_ms, followed)
        if found.leading:
            for place in found.leading:
                await self._take_one(arrival, place, False)
            leading = frozenset(found.leading)
            rest = [place for place in range(len(arrival.messages)) if place not in leading]
            found = await self._find(arrival, rest, latest_ms, followed)
        if self.unborn.messages and found.read.born:
            keys = [key for born in found.read.born for key in self._plain.births.keys(born)]
            await self._decode_freed(self.unborn.born(keys))
            await self._begin_freed()
        if found.held:
            self._waiting.hold_all(found.held)
        held_readings = arrival.counts[[each.place for each in found.held]].sum()
        self._in_flight.accept(found.read.weight + int(held_readings))
        self._in_flight.counters.births += found.births
        for group in found.read.groups:
            self._admission.refresh_rows(group.columns.rows)
        await self._read_plainly(arrival, found)
        left = found.read if len(found.read.places) else None
        while left is not None:
            part, left = left.split(await self._batcher.room())
            await self._batcher.add(part)

    async def _find(
        self, arrival: Arrival, which: Sequence[int] | None, latest_ms: int, followed: bool
    ) -> Found:
        return await when_readable(
            lambda: self._reader.read(arrival, which, latest_ms, self._admission.unknown, followed=followed)
        )

    async def _read_plainly(self, arrival: Arrival, found: Found) -> None:
        """Decode the messages that the fast path left. Sequence numbers are checked in the order of
        arrival."""
        sequence = found.sequence
        for number, (place, is_followed) in enumerate(found.plain):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            if sequence is not None and not is_followed:
                node = self._reader.node(arrival.messages.topics[place])
                self._plain.follow(sequence.follow_until(node, place) if node is not None else ())
            await self._take_one(arrival, place, is_followed)
        if sequence is not None:
            self._plain.follow(sequence.follow_all())

    async def _take_one(self, arrival: Arrival, place: int, followed: bool) -> None:
        message = await self._read_one(arrival, place, followed)
        continues = await self._heed(message)
        await self._begin_freed()  # they came before it
        if continues:
            await self._begin(message)

    async def _heed(self, message: InFlightMessage) -> bool:
        """Hold the message if it needs a birth, and decode those that were waiting for this one; returns
        whether the message continues."""
        if message.unborn:
            await self._decode_freed(self._hold(message))
        elif self.unborn.messages:
            await self._decode_freed(self.unborn.after(message))
        return not message.unborn

    def _hold(self, message: InFlightMessage) -> Sequence[Freed]:
        """Hold a message for its birth, unless it would be refused with it. Returns those that are not
        held."""
        assert message.arrival is not None
        if message.unit is not None:
            if self._is_refused(message.unit, message.county, message.enterprise):
                return [Freed(message.arrival, message.place, "")]
            if self._admission.find(message.unit) is None:
                self._admission.ask([message.unit])
        return self.unborn.hold(message)

    def _is_refused(self, unit: str, county: str, enterprise: str) -> bool:
        """Whether the platform has answered that this is not an enterprise's unit."""
        admitted = self._admission.find(unit)
        if admitted is None:
            return self._admission.is_unknown(unit)
        return (admitted.tags.county, admitted.tags.enterprise) != (county, enterprise)

    async def _decode_freed(self, freed: Sequence[Freed]) -> None:
        """At once, before another birth gives the aliases another meaning."""
        for arrival, place, refusal in freed:
            message = await self._plain.read(arrival, place, True, may_wait=False, refusal=refusal)
            self._freed.append(message)

    async def _begin_freed(self) -> None:
        freed, self._freed = self._freed, []
        for message in freed:
            await self._begin(message)

    async def _read_one(self, arrival: Arrival, place: int, followed: bool) -> InFlightMessage:
        """Births of its unit that are still held come before it, so they take effect first."""
        if self._waiting.messages:
            for unit in unit_topics.units([arrival.messages.topics[place]]):
                await self._waiting.take_apart(unit)
        return await self._plain.read(arrival, place, followed)

    async def _begin(self, message: InFlightMessage) -> None:
        """Put the message into a batch, unless it waits for the platform's answer about its unit."""
        self._in_flight.accept(message.count)
        unit = message.unit
        if unit is not None and (message.readings or message.nameless or message.birth or message.death):
            admitted = None if unit in self._waiting else self._admission.find(unit)
            if unit in self._waiting or (admitted is None and not self._admission.is_unknown(unit)):
                self._waiting.hold(unit, message)
                return
            self._plain.judge(message, admitted)
        await self._batcher.add(message)

    async def _release(self, units: Sequence[str]) -> None:
        if units and self.unborn.messages:
            await self._decode_freed(self.unborn.refused(units, self._is_refused))
        undecoded, decoded = await self._waiting.release(units)
        self._reader.learn_all(undecoded)
        for unit, message in decoded:
            self._plain.judge(message, self._admission.find(unit))
        for _, message in decoded:
            await self._batcher.add(message)
        held: dict[Arrival, list[int]] = {}
        for each in undecoded:
            held.setdefault(each.arrival, []).append(each.place)
        for arrival, places in sorted(held.items(), key=lambda item: item[0].number):
            places.sort()
            self._in_flight.accept(-int(arrival.counts[places].sum()))
            arrival.counts[places] = 0
            await self._read(arrival, places, followed=True)
        await self._begin_freed()
