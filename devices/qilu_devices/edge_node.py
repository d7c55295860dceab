"""A simulated Sparkplug edge node: one enterprise, one connection, all its units.

Readings enter by `offer`. They are published only while the connection stands and the host's STATE is online,
after the births; until then, and until the broker has acknowledged them, they stay here. So a reading is
published again after a lost connection, and leaves the node by PUBACK alone, or by the bound of the buffer:
when it is full, the oldest goes and is counted in `dropped`.

Sample 0 of a unit is published by its birth and by nothing else. Births repeat acknowledged values with their
own sample times, so they never carry a reading that is not counted.

What a transport fault makes of a reading (`disturbance`) takes the same way. Only, a connection is never lost
on purpose under a message that will be refused: published twice, it would be two dead letters.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice

import msgspec
import structlog
from mqttium.api import AsyncClient, PublishMessage, PublishReceipt
from mqttium.errors import ConnectRefusedError, MQTTError
from mqttium.types import Message
from qilu_contract import sparkplug, topics
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.errors import BadReading, ConfigError

from qilu_devices import payloads
from qilu_devices.broker import Broker
from qilu_devices.clock import Gate
from qilu_devices.disturbance import Sending, Way
from qilu_devices.fleet import Enterprise, Unit
from qilu_devices.simulation import Sample, Shape

WINDOW = 256
"""Messages in flight to the broker a node: enough to hide the way there and back, small enough to repeat."""
SEND_TIMEOUT_S = 30.0
FAREWELL_S = 1.0
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.25, 15.0
REBIRTH_PAUSE_S = 2.0
"""Rebirths follow each other no faster than this, whatever is commanded."""
_DISCONNECT_WITH_WILL = 0x04  # MQTT 5: the broker publishes the will, should we have no time for it
_NOT_AUTHORISED = frozenset({0x86, 0x87})  # MQTT 5: bad user name or password, not authorized

_log = structlog.get_logger(__name__)


class _HostState(msgspec.Struct):
    online: bool
    timestamp: int


class _Device:
    """A unit as its node knows it. `last`: acknowledged values by position (sample 0's until then), None
    before sample 0. `first_pending`: sample 0 is not acknowledged yet."""

    __slots__ = ("_layouts", "alias", "equipment", "first_pending", "last", "unit")

    def __init__(self, unit: Unit, alias: int) -> None:
        self.unit = unit
        self.equipment = CATALOGUE[unit.class_name]
        self.alias = alias
        self.last: list[payloads.Dated] | None = None
        self.first_pending = False
        floats = all(signal.type == "float" for signal in self.equipment.signals)
        self._layouts: dict[tuple[Shape, bool], payloads.DataLayout] | None = {} if floats else None

    def data(self, sample: Sample, seq: int, is_historical: bool) -> bytes:
        if self._layouts is None:
            return payloads.data(sample, self.alias, seq, is_historical)
        layout = self._layouts.get((sample.shape, is_historical))
        if layout is None:
            layout = payloads.DataLayout(self.equipment, sample.shape, self.alias, is_historical)
            self._layouts[sample.shape, is_historical] = layout
        return layout.encode(sample, seq)

    def take(self, sample: Sample) -> None:
        dated = zip(sample.shape.positions, sample.values, strict=True)
        if self.last is None:
            self.last = [(sample.ts_ms, value) for _, value in dated]
        else:
            for position, value in dated:
                self.last[position] = (sample.ts_ms, value)


_InFlight = Sample | Sending | _Device | None  # a reading, a unit's birth, the node's birth


def _made_ms(item: Sample | Sending) -> int:
    return item.made_ms if isinstance(item, Sending) else item.ts_ms


class EdgeNode:
    """See the module. `progress` is called whenever the node's numbers change for the better, or its
    connection changes."""

    def __init__(
        self,
        enterprise: Enterprise,
        units: Sequence[Unit],
        broker: Broker,
        gate: Gate,
        capacity: int,
        connecting: asyncio.Semaphore,
        progress: Callable[[], None],
    ) -> None:
        self.id = enterprise.id
        self._group = enterprise.county
        self._broker, self._gate, self._capacity = broker, gate, capacity
        self._connecting, self._progress = connecting, progress
        self._devices: dict[str, _Device] = {}
        alias = 0
        for unit in units:
            device = self._devices[unit.id] = _Device(unit, alias)
            alias += len(device.equipment.signals)
        self._data_topics = {
            unit.id: topics.sparkplug("DDATA", self._group, self.id, unit.id) for unit in units
        }

        self._buffer: deque[Sample | Sending] = deque()
        self._in_order = True  # the buffer, by when it was made
        self._disconnecting = False
        self._in_flight: dict[int, _InFlight] = {}
        self._births: deque[_Device] = deque()
        self._node_birth_due = False
        self._historical_until_ms = 0  # what was sampled up to here waited for the connection or the host
        self._client: AsyncClient | None = None
        self._failure: BaseException | None = None
        self._ever_connected = False
        self._host_online = False
        self._host_since_ms = -1
        self._bd_seq = random.randrange(256)  # not 0: a will of an earlier process must not match
        self._seq = 0
        self._token = 0
        self._rebirth_at_s = float("-inf")
        self._rebirth_timer: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()

        self.made = 0
        self.acked = 0
        self.dropped = 0
        self.births = 0
        self.bad_commands = 0
        self.made_until_ms = 0

    @property
    def online(self) -> bool:
        """Connected, and the host takes readings."""
        return self._client is not None and self._host_online

    @property
    def pending(self) -> int:
        """Readings made that are neither acknowledged nor dropped."""
        return self.made - self.acked - self.dropped

    @property
    def acked_through_ms(self) -> int:
        """Every reading sampled up to here is acknowledged (or dropped, if `dropped` says so)."""
        in_flight = self._in_flight.values()
        waiting = [_made_ms(item) for item in in_flight if isinstance(item, Sample | Sending)]
        ahead = islice(self._buffer, 1 if self._in_order else None)
        waiting += [_made_ms(item) for item in ahead if isinstance(item, Sample) or item.counts]
        firsts = [
            device.last[0][0] for device in self._devices.values() if device.first_pending and device.last
        ]
        return min([self.made_until_ms, *(ts_ms - 1 for ts_ms in waiting + firsts)])

    def offer(self, sample: Sample | Sending) -> None:
        """Take a reading; samples of a unit come in time order, its first one as it is. Never blocks."""
        if isinstance(sample, Sending):
            self._disturb(sample)
            return
        self.made += 1
        self.made_until_ms = sample.ts_ms
        device = self._devices[sample.unit.id]
        if device.last is None:
            device.take(sample)
            device.first_pending = True
            if self.online:
                self._births.append(device)
        else:
            self._buffer.append(sample)
            self._bound()
        self._wake.set()

    def _disturb(self, sending: Sending) -> None:
        self.made += sending.counts
        self.made_until_ms = max(self.made_until_ms, sending.made_ms)
        self._in_order = False
        self._buffer.append(sending)
        self._bound()
        self._wake.set()

    def _disconnect_if_due(self) -> None:
        in_flight = self._in_flight.values()
        if self._disconnecting and not any(isinstance(item, Sending) and item.refused for item in in_flight):
            self._fail(ConnectionError("lost on purpose"))

    def wake(self) -> None:
        """The gate has moved: look again whether something can be published."""
        if self._buffer or self._births:
            self._wake.set()

    def stop(self) -> None:
        """Say farewell and end `run`. What is pending stays so."""
        self._stop.set()
        self._wake.set()

    async def run(self) -> None:
        """Connects, publishes, reconnects, until `stop`. Raises ConfigError when the broker refuses us from
        the beginning."""
        delay_s = RECONNECT_MIN_S
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            began_s = loop.time()
            try:
                await self._session()
            except ConnectRefusedError as error:
                if error.reason_code in _NOT_AUTHORISED and not self._ever_connected:
                    raise ConfigError(
                        f"The broker {self._broker} refuses user {self._broker.user!r}: "
                        "set QILU_MQTT_USER and QILU_MQTT_PASSWORD, or name them in the broker's URL."
                    ) from error
                _log.debug("edge_node_refused", node=self.id, error=str(error))
            except (MQTTError, OSError, TimeoutError) as error:
                _log.debug("edge_node_disconnected", node=self.id, error=str(error))
            if self._disconnecting or loop.time() - began_s > RECONNECT_MAX_S:
                # That was a connection, not another failure.
                delay_s = RECONNECT_MIN_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0.5, 1.0) * delay_s):
                    await self._stop.wait()
            delay_s = min(2.0 * delay_s, RECONNECT_MAX_S)

    # -- one connection

    async def _session(self) -> None:
        self._bd_seq = (self._bd_seq + 1) % 256
        death_topic = topics.sparkplug("NDEATH", self._group, self.id)
        death = payloads.node_death(self._bd_seq, self.made_until_ms)
        client = self._broker.client(self.id, PublishMessage(death_topic, death, qos=1))
        client.on_message = partial(self._on_message, client)
        client.on_disconnect = partial(self._on_disconnect, client)
        self._failure = None
        self._disconnecting = False
        self._host_online, self._host_since_ms = False, -1
        reason = _DISCONNECT_WITH_WILL
        try:
            async with self._connecting:
                if self._stop.is_set():
                    return
                await self._broker.connect(client)
                self._client = client
                self._ever_connected = True
                commands = (
                    topics.sparkplug("NCMD", self._group, self.id),
                    topics.sparkplug("DCMD", self._group, self.id, "+"),
                )
                await client.subscribe([*commands, topics.state()], qos=1)
            await self._publish_all(client)
            if self._failure is not None:
                raise self._failure
            async with asyncio.timeout(FAREWELL_S):
                receipt = await client.publish(death_topic, death, qos=1)
                await receipt.wait()
            reason = 0
        finally:
            self._client = None
            self._host_online = False
            if self._rebirth_timer is not None:
                self._rebirth_timer.cancel()
                self._rebirth_timer = None
            self._take_back()
            self._progress()
            await client.disconnect(reason)  # bounded by itself

    async def _publish_all(self, client: AsyncClient) -> None:
        """Publishes whatever may be published until `stop` or the connection's end."""
        while self._failure is None and not self._stop.is_set():
            may_send = len(self._in_flight) < WINDOW and not self._disconnecting
            message = self._next() if may_send else None
            if message is None:
                if self._failure is None:
                    self._wake.clear()
                    await self._wake.wait()
                continue
            topic, payload, item = message
            token = self._token = self._token + 1
            self._in_flight[token] = item
            async with asyncio.timeout(SEND_TIMEOUT_S):
                receipt = await client.publish(topic, payload, qos=1)
            receipt.add_done_callback(partial(self._on_settled, client, token))

    def _next(self) -> tuple[str, bytes, _InFlight] | None:
        """The next message, births before data; None when there is none, or none may be published now."""
        if not self._host_online:
            return None
        if self._node_birth_due:
            self._node_birth_due = False
            self._seq = 0
            topic = topics.sparkplug("NBIRTH", self._group, self.id)
            return topic, payloads.node_birth(self._bd_seq, self.made_until_ms, 0), None
        if self._births:
            device = self._births[0]
            assert device.last is not None
            if max(ts_ms for ts_ms, _ in device.last) > self._gate.limit_ms():
                return None
            self._births.popleft()
            self.births += 1
            topic = topics.sparkplug("DBIRTH", self._group, self.id, device.unit.id)
            birth = payloads.device_birth(device.equipment, device.alias, device.last, self._next_seq())
            return topic, birth, device
        if not self._buffer or self._buffer[0].ts_ms > self._gate.limit_ms():
            return None
        sample = self._buffer.popleft()
        if isinstance(sample, Sending):
            if sample.way is Way.DISCONNECT:
                self._disconnecting = True
                self._disconnect_if_due()
                return None
            return *self._encode(sample), sample
        historical = sample.ts_ms <= self._historical_until_ms
        body = self._devices[sample.unit.id].data(sample, self._next_seq(), historical)
        return self._data_topics[sample.unit.id], body, sample

    def _encode(self, sending: Sending) -> tuple[str, bytes]:
        sample = sending.sample
        if sending.way is Way.GARBAGE:
            return topics.sparkplug("NDATA", self._group, self.id), payloads.garbage(sample)
        device, topic = self._devices[sample.unit.id], self._data_topics[sample.unit.id]
        if sending.way is Way.WRONG_TYPE:
            seq = self._next_seq()
            return topic, payloads.data(sample, device.alias, seq, False, as_text=sending.signal)
        historical = sending.way is Way.LATE or sending.made_ms <= self._historical_until_ms
        return topic, device.data(sample, self._next_seq(), historical)

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) % 256
        return self._seq

    def _on_settled(self, client: AsyncClient, token: int, receipt: PublishReceipt) -> None:
        if client is not self._client:
            return  # the connection is over, and the message was taken back
        error = receipt.exception()
        if error is not None:
            self._fail(error)  # it stays in flight, so that it is taken back
            return
        item = self._in_flight.pop(token)
        if isinstance(item, Sample):
            self.acked += 1
            self._devices[item.unit.id].take(item)
        elif isinstance(item, Sending):
            self.acked += item.counts
            if item.way is Way.SHIFTED:  # the others say nothing, or nothing newer than what was said
                self._devices[item.unit.id].take(item.sample)
            self._disconnect_if_due()
        elif item is not None and item.first_pending:
            item.first_pending = False
            self.acked += 1
        if self._buffer or self._births:
            self._wake.set()
        self._progress()

    def _on_disconnect(self, client: AsyncClient, error: BaseException | None) -> None:
        if client is self._client:
            self._fail(error or ConnectionError("the broker closed the connection"))

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._wake.set()

    def _take_back(self) -> None:
        """What was published but not acknowledged goes back to the head of the buffer, in time order."""
        samples = [item for item in self._in_flight.values() if isinstance(item, Sample | Sending)]
        self._in_flight.clear()
        self._births.clear()
        self._node_birth_due = False
        self._buffer.extendleft(reversed(samples))
        self._bound()

    def _bound(self) -> None:
        while len(self._buffer) > self._capacity:
            item = self._buffer.popleft()
            self.dropped += item.counts if isinstance(item, Sending) else 1

    # -- what others tell us

    def _on_message(self, client: AsyncClient, message: Message) -> None:
        """STATE of the host and commands to this node. Whatever else comes is counted and ignored."""
        if client is not self._client:
            return
        if message.topic == topics.state():
            self._on_state(message.payload)
        elif message.topic == topics.sparkplug("NCMD", self._group, self.id):
            self._on_command(message.payload)
        else:
            self.bad_commands += 1  # no signal can be written to

    def _on_state(self, payload: bytes) -> None:
        try:
            state = msgspec.json.decode(payload, type=_HostState)
        except msgspec.DecodeError:  # ValidationError is one, too
            self.bad_commands += 1
            return
        if state.timestamp < self._host_since_ms:
            return  # an older host's will, come late
        self._host_since_ms = state.timestamp
        if state.online == self._host_online:
            return
        self._host_online = state.online
        if state.online:
            if self._buffer:
                self._historical_until_ms = _made_ms(self._buffer[-1])
            self._be_born()
        else:
            self._births.clear()
            self._node_birth_due = False
        self._progress()

    def _on_command(self, payload: bytes) -> None:
        try:
            metrics = sparkplug.decode(payload).metrics
        except BadReading:
            self.bad_commands += 1
            return
        if not any(metric.name == payloads.REBIRTH and metric.value is True for metric in metrics):
            self.bad_commands += 1
        elif self._host_online and self._rebirth_timer is None:
            loop = asyncio.get_running_loop()
            wait_s = max(0.0, self._rebirth_at_s + REBIRTH_PAUSE_S - loop.time())
            self._rebirth_timer = loop.call_later(wait_s, self._rebirth)

    def _rebirth(self) -> None:
        self._rebirth_timer = None
        if self._host_online:
            self._be_born()

    def _be_born(self) -> None:
        self._rebirth_at_s = asyncio.get_running_loop().time()
        self._births = deque(device for device in self._devices.values() if device.last is not None)
        self._node_birth_due = True
        self._wake.set()
