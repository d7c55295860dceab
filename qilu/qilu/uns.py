"""Republishes the readings of equipment as a unified namespace: the topic of a unit follows ISA-95.

    uns/v1/{enterprise}/{site}/{area}/{line}/{unit}     site = county, area = industry, line = class

A message is JSON, `{"ts": <ms>, "values": {"<signal>": value, …}}`, retained, at QoS 0. This is a view for
people and tools: it listens to the broker beside the gateway, in a separate session that the broker does not
keep, and may miss messages. It republishes only registered units, under the enterprise that owns them.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import aiomqtt
import msgspec
import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.errors import MqttError
from qilu_common.mqtt.reconnecting import keep_connected
from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.errors import BadReading
from qilu_contract.readings import Reading, Value
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.clock import wall_ms
from qilu_platform.client import Platform, PlatformError, Unit

log = structlog.get_logger()

ROOT = "uns/v1"
FILTERS = (
    *(f"{topics.NAMESPACE}/+/{type_}/+/+" for type_ in ("DBIRTH", "DDATA")),
    topics.telemetry("+", "+", "+"),
)
MAX_UNITS = 100_000
"""Units whose class and aliases are kept, about a kilobyte each; beyond it the oldest are forgotten."""
FORGET_S = 60.0
"""After which a unit that was not found is asked for again."""
REBIRTH_S = 60.0
"""Between two requests for the birth of a unit to one edge node."""
MAX_WAITING = 10_000
TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Known:
    """A unit: None if the platform does not have it, and its aliases since its last birth."""

    unit: Unit | None
    since_s: float
    signals: dict[int, str] = field(default_factory=dict)


class Namespace:
    """Turns messages of equipment into those of the namespace. `find` returns the unit with an id, or None;
    it may block."""

    def __init__(self, find: Callable[[str], Unit | None]) -> None:
        self._find = find
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asked_s: dict[str, float] = {}

    def take(self, topic: str, body: bytes) -> Iterator[tuple[str, bytes]]:
        """The messages to publish because of one: readings, or the request for a birth. May block."""
        try:
            place = topics.parse(topic)
            if isinstance(place, topics.DoorTopic):
                readings = [
                    each for each in place.door.decode(place.unit, body, wall_ms) if isinstance(each, Reading)
                ]
                yield from self._published(place.county, place.enterprise, readings)
            elif isinstance(place, topics.SparkplugTopic) and place.device is not None:
                yield from self._sparkplug(place, place.device, sparkplug.decode(body))
        except BadReading:
            return  # the gateway reports it

    def _sparkplug(
        self, place: topics.SparkplugTopic, device: str, payload: sparkplug.Payload
    ) -> Iterator[tuple[str, bytes]]:
        known = self._of(device)
        if known.unit is None:
            return
        if place.type == "DBIRTH":
            known.signals = {
                each.alias: each.name for each in payload.metrics if each.alias is not None and each.name
            }
        by_time: dict[int, dict[str, Value]] = {}
        for metric in payload.metrics:
            name = metric.name or known.signals.get(metric.alias if metric.alias is not None else -1)
            if name is None:
                yield from self._birth_wanted(place)
                return
            ts_ms = payload.ts_ms if metric.ts_ms is None else metric.ts_ms
            if ts_ms is not None and isinstance(metric.value, bool | int | float):
                by_time.setdefault(ts_ms, {})[name] = metric.value
        readings = [Reading(device, ts_ms, values) for ts_ms, values in sorted(by_time.items())]
        yield from self._published(place.group, place.node, readings)

    def _birth_wanted(self, place: topics.SparkplugTopic) -> Iterator[tuple[str, bytes]]:
        now_s = time.monotonic()
        if now_s - self._asked_s.get(place.node, -REBIRTH_S) < REBIRTH_S:
            return
        if len(self._asked_s) >= MAX_UNITS:
            self._asked_s.clear()
        self._asked_s[place.node] = now_s
        yield topics.sparkplug("NCMD", place.group, place.node), sparkplug.rebirth_request(wall_ms())

    def _published(
        self, county: str, enterprise: str, readings: list[Reading]
    ) -> Iterator[tuple[str, bytes]]:
        for reading in readings:
            unit = self._of(reading.unit).unit
            if unit is None or (unit.county, unit.enterprise) != (county, enterprise):
                continue
            names = {each.name for each in REGISTRABLE[unit.class_].signals}
            values = {name: value for name, value in reading.values.items() if name in names}
            if values:
                topic = f"{ROOT}/{enterprise}/{county}/{unit.industry}/{unit.class_}/{unit.id}"
                yield topic, msgspec.json.encode({"ts": reading.ts_ms, "values": values})

    def _of(self, id_: str) -> _Known:
        known = self._known.get(id_)
        now_s = time.monotonic()
        if known is None or (known.unit is None and now_s - known.since_s > FORGET_S):
            known = self._known[id_] = _Known(self._find(id_), now_s)
            if len(self._known) > MAX_UNITS:
                self._known.popitem(last=False)
        return known


async def run(source: BrokerAddress, target: BrokerAddress, platform: Platform, stop: asyncio.Event) -> None:
    """Republish from one broker to another, or to the same, until `stop` is set."""

    def find(id_: str) -> Unit | None:
        try:
            return platform.unit(id_)
        except PlatformError as error:
            if error.status != 404:
                log.warning("the platform does not answer about a unit", unit=id_, error=str(error))
            return None

    namespace = Namespace(find)

    async def use() -> None:
        try:
            async with _client(source) as read, _client(target) as write:
                for each in FILTERS:
                    await read.subscribe(each, qos=0)
                log.info("the namespace is published", source=str(source), target=str(target))
                async for message in read.messages:
                    if isinstance(message.payload, bytes) and not message.retain:
                        made = await asyncio.to_thread(
                            list, namespace.take(str(message.topic), message.payload)
                        )
                        for topic, body in made:
                            is_view = topic.startswith(ROOT)
                            await (write if is_view else read).publish(topic, body, qos=0, retain=is_view)
        except aiomqtt.MqttError as error:
            raise MqttError(str(error)) from error

    served = asyncio.create_task(keep_connected(source, use, stop), name="namespace")
    await stop.wait()
    served.cancel()
    await asyncio.gather(served, return_exceptions=True)


def _client(broker: BrokerAddress) -> aiomqtt.Client:
    node = broker.nodes[0]
    return aiomqtt.Client(
        node.host,
        node.port,
        username=broker.user,
        password=broker.password,
        protocol=aiomqtt.ProtocolVersion.V5,
        tls_context=broker.tls_context(),
        timeout=TIMEOUT_S,
        max_queued_incoming_messages=MAX_WAITING,
    )
