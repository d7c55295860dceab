"""Holds data whose birth is unknown, unacknowledged, until the birth that was requested arrives.

The birth is unknown when another gateway received it: after a shard has moved, or after a start without
state.
Data does not say to which connection of its edge node it belongs. So it is decoded by the next birth only if
nothing shows that the connection has ended since: no death, and no birth with another bdSeq. A rebirth on the
same connection declares the same metrics
([140](../../../docs/decisions/140-data-waits-for-its-birth.md)).

Held messages take room in the receive window, through which the birth must come, and PUBACKs of later
messages wait for them (`qilu_common/mqtt/messages.py`). So their number is bounded, and the oldest are given
up first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import takewhile
from typing import NamedTuple

import msgspec

from qilu_gateway.read import unit_topics
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.births import HISTORY, Births, Key
from qilu_gateway.read.edge_nodes import EdgeNode
from qilu_gateway.read.in_flight import InFlightMessage

MOST_BYTES = 64 * 1024 * 1024
"""Maximum bytes of held payloads: a quarter of what may be in flight."""
WAIT_S = 120.0
"""Long enough for a second rebirth request, if the first one was lost (`rebirths.py`)."""
SILENT_S = 10.0
"""If no message arrives on a lane for this time, held messages may block it, because the broker has a smaller
window than the gateway asked for; assumed."""
FEWEST = 10
"""Fewer messages fill no broker's window: Mosquitto's default is 20."""
SMALL_S = 600.0
"""How long such a window is assumed to be small."""
LATE = f"no birth has come in the {WAIT_S:.0f} s since the message"
TOO_MANY = "too many messages wait for births: this one was among the oldest"
ENDED = "its connection has ended, and the birth of that connection is unknown"


class Freed(NamedTuple):
    """A message that no longer waits: decoded by its birth, or refused if `refusal` is not empty."""

    arrival: Arrival
    place: int
    refusal: str


class _Device(msgspec.Struct, eq=False):
    """Held messages of a device, or of an edge node itself, in the order of arrival."""

    node: EdgeNode
    session: int
    """The session of the node in which they were received."""
    since_s: float
    since_message: int
    """Messages that had arrived on its lane before."""
    messages: list[tuple[Arrival, int]] = []


class _Lane(msgspec.Struct, eq=False):
    """Held messages of one session at the broker."""

    most: int
    heard_s: float
    arrived: int = 0
    """Messages so far."""
    room: int = 0
    """The broker's window, if it has proved small; 0: not."""
    small_until_s: float = 0.0
    messages: int = 0
    devices: dict[Key, _Device] = {}
    """The oldest first."""
    nodes: dict[tuple[str, str], dict[Key, None]] = {}
    """Its devices by edge node."""

    @property
    def since_oldest(self) -> int:
        """Number of messages that have arrived since the oldest that is held, with it."""
        return self.arrived - next(iter(self.devices.values())).since_message if self.devices else 0


class Unborn:
    def __init__(self, births: Births, windows: Mapping[int, int]) -> None:
        """`windows`: the receive maximum of each lane. At most a quarter of it is held; PUBACKs that wait
        take up to a half."""
        now_s = time.monotonic()
        self._births = births
        self._lanes = {lane: _Lane(window // 4, now_s) for lane, window in windows.items()}
        self._bytes = 0

    @property
    def messages(self) -> int:
        return sum([lane.messages for lane in self._lanes.values()])

    def heard(self, arrival: Arrival) -> list[Freed]:
        """Record that messages have arrived; returns those that are given up because they would block a small
        window."""
        lane = self._lanes[arrival.lane]
        lane.heard_s = time.monotonic()
        arrival.before = lane.arrived
        lane.arrived += len(arrival.messages)
        freed: list[Freed] = []
        while lane.room and lane.devices and lane.since_oldest > lane.room // 2:
            freed += self._free(lane, next(iter(lane.devices)), TOO_MANY)
        return freed

    def hold(self, message: InFlightMessage) -> list[Freed]:
        """Hold a message; returns those that are given up to make room."""
        arrival, place = message.arrival, message.place
        assert arrival is not None, "a message from a dead letter waits for nothing"
        found = unit_topics.sparkplug(arrival.messages.topics[place])
        assert found is not None, "only Sparkplug messages need a birth"
        _, key = found
        lane = self._lanes[arrival.lane]
        device = lane.devices.get(key)
        if device is None:
            node = self._births.node(*key[:2])
            device = lane.devices[key] = _Device(node, node.session, time.monotonic(), arrival.before + place)
            lane.nodes.setdefault(key[:2], {})[key] = None
        device.messages.append((arrival, place))
        lane.messages += 1
        arrival.unborn += 1
        self._bytes += len(arrival.messages.payloads[place])
        freed: list[Freed] = []
        while lane.devices and (lane.messages > lane.most or self._bytes > MOST_BYTES):
            freed += self._free(lane, next(iter(lane.devices)), TOO_MANY)
        return freed

    def born(self, keys: Iterable[Key]) -> list[Freed]:
        """The messages that births of these devices and nodes free."""
        freed: list[Freed] = []
        for key in keys:
            for number, lane in self._lanes.items():
                device = lane.devices.get(key)
                if device is None:
                    continue
                table, session = self._births.find(key), device.node.session
                if session != device.session:
                    freed += self._free(lane, key, ENDED)
                elif table is not None and table.session == session and device.node.lane == number:
                    freed += self._free(lane, key, "")
        return freed

    def after(self, message: InFlightMessage) -> list[Freed]:
        """The messages that this birth or death frees."""
        found = unit_topics.sparkplug(message.topic.encode())
        if found is None or found[0] not in ("NBIRTH", "DBIRTH", "NDEATH", "DDEATH"):
            return []
        type_, key = found
        freed: list[Freed] = []
        if key[2]:
            if type_ == "DBIRTH":
                return self.born([key])
            for lane in self._lanes.values():
                freed += self._free(lane, key, ENDED)
            return freed
        for lane in self._lanes.values():
            for each in list(lane.nodes.get(key[:2], ())):
                if lane.devices[each].node.session != lane.devices[each].session:
                    freed += self._free(lane, each, ENDED)
        return freed + self.born([key])

    def refused(self, units: Collection[str], is_refused: Callable[[str, str, str], bool]) -> list[Freed]:
        """The messages of those of these units that `is_refused` (unit, county, enterprise) holds for."""
        freed: list[Freed] = []
        some = set(units)
        for lane in self._lanes.values():
            keys = [key for key in lane.devices if key[2] in some]
            for key in keys:
                if is_refused(key[2], key[0].removeprefix(HISTORY), key[1]):
                    freed += self._free(lane, key, "")
        return freed

    def overdue(self, now_s: float, waits: Callable[[str], bool]) -> list[Freed]:
        """The messages that have waited for too long, or may fill the window of their lane. `waits`: whether
        the birth of this unit may have arrived, and waits for the platform's answer: then its data waits with
        it."""
        freed: list[Freed] = []
        for lane in self._lanes.values():
            old = list(takewhile(lambda item: item[1].since_s <= now_s - WAIT_S, lane.devices.items()))
            for key, _ in old:
                if not waits(key[2]):
                    freed += self._free(lane, key, LATE)
            if lane.small_until_s < now_s:
                lane.room = 0
            if lane.heard_s < now_s - SILENT_S and lane.since_oldest >= FEWEST:
                lane.room, lane.small_until_s = lane.since_oldest, now_s + SMALL_S
                freed += self._free(lane, next(iter(lane.devices)), TOO_MANY)
        return freed

    def _free(self, lane: _Lane, key: Key, refusal: str) -> list[Freed]:
        device = lane.devices.pop(key, None)
        if device is None:
            return []
        others = lane.nodes[key[:2]]
        del others[key]
        if not others:
            del lane.nodes[key[:2]]
        lane.messages -= len(device.messages)
        now_s = time.monotonic()
        for arrival, place in device.messages:
            arrival.unborn -= 1
            arrival.received_s = now_s  # until now nothing could be done about it
            self._bytes -= len(arrival.messages.payloads[place])
        return [Freed(arrival, place, refusal) for arrival, place in device.messages]
