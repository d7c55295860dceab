"""Holds messages, in order, until the platform has answered about their unit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from qilu_gateway.admit.admission import Admission
from qilu_gateway.read.in_flight import InFlight, InFlightMessage
from qilu_gateway.read.plain import PlainReader
from qilu_gateway.read.reads import Held


class Waiting:
    def __init__(
        self,
        admission: Admission,
        plain: PlainReader,
        in_flight: InFlight,
        heed: Callable[[InFlightMessage], Awaitable[bool]],
    ) -> None:
        """`heed` is called with each message that is decoded here; returns whether it still waits here."""
        self._admission, self._plain, self._in_flight = admission, plain, in_flight
        self._heed = heed
        self._by_unit: dict[str, list[InFlightMessage | Held]] = {}
        self.messages = 0

    def __contains__(self, unit: str) -> bool:
        return unit in self._by_unit

    def hold(self, unit: str, item: InFlightMessage | Held) -> None:
        """Hold a message, and have the platform asked about its unit."""
        if self._add(unit, item):
            self._admission.ask([unit])

    def hold_all(self, items: Sequence[Held]) -> None:
        self._admission.ask([item.topic.unit for item in items if self._add(item.topic.unit, item)])

    def _add(self, unit: str, item: InFlightMessage | Held) -> bool:
        """Returns whether it is the first message of its unit; others wait behind it."""
        self.messages += 1
        waiting = self._by_unit.get(unit)
        if waiting is None:
            self._by_unit[unit] = [item]
            return True
        waiting.append(item)
        return False

    async def release(self, units: Sequence[str]) -> tuple[list[Held], list[tuple[str, InFlightMessage]]]:
        """Remove and return the held messages of these units: undecoded ones, and others with their unit. If
        one message of a unit is decoded by itself, all of them are, because they are written in order."""
        undecoded: list[Held] = []
        decoded: list[tuple[str, InFlightMessage]] = []
        for unit in units:
            items = self._by_unit.pop(unit, ())
            self.messages -= len(items)
            some = [item for item in items if isinstance(item, Held)]
            if len(some) == len(items):
                undecoded += some
            else:
                decoded += [(unit, message) for message in await self._taken_apart(items)]
        return undecoded, decoded

    async def make_way(self, nodes: set[tuple[str, str]]) -> None:
        """Decode the held messages of these nodes and their units before a birth or death takes effect: they
        belong to the previous birth."""
        for unit, items in list(self._by_unit.items()) if nodes else ():
            held = [item.topic for item in items if isinstance(item, Held)]
            if any((topic.group, topic.enterprise) in nodes for topic in held):
                await self.take_apart(unit)

    async def take_apart(self, unit: str) -> None:
        """A message of this unit is to be read one at a time: so is everything of it that came before."""
        items = self._by_unit.get(unit)
        if items is not None:
            messages = await self._taken_apart(items)
            self.messages -= len(items) - len(messages)
            items[:] = messages

    async def _taken_apart(self, items: Sequence[InFlightMessage | Held]) -> list[InFlightMessage]:
        messages: list[InFlightMessage] = []
        for item in items:
            if isinstance(item, Held):
                self._in_flight.accept(-int(item.arrival.counts[item.place]))
                message = await self._plain.read(item.arrival, item.place, True)
                self._in_flight.accept(message.count)
                if await self._heed(message):
                    messages.append(message)
            else:
                messages.append(item)
        return messages
