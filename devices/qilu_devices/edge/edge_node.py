"""A simulated Sparkplug edge node: one enterprise, one connection, all its units.

Readings enter by `offer`. They are published only while the connection stands and the host's STATE is online,
after the births; until then, and until the broker has acknowledged them, they stay here. So a reading is
published again after a lost connection, and leaves the node by PUBACK alone, or by the bound of the buffer:
when it is full, the oldest goes and is counted in `dropped`. A PUBACK that refuses a message ends the
connection; a host that goes offline makes the node say its death, leave, and connect anew.

Sample 0 of a unit is published by its birth and by nothing else. Births repeat acknowledged values with their
own sample times, so they never carry a reading that is not counted.

What a transport fault makes of a reading (`disturbance`) takes the same way. Only, a connection is never lost
on purpose under a message that will be refused: published twice, it would be two dead letters.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import msgspec
import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions, Will
from qilu_common.mqtt.connection import Connection, connect
from qilu_common.mqtt.errors import (
    NOT_AUTHORISED,
    SESSION_TAKEN_OVER,
    ConnectRefused,
    MessageRefused,
    MqttError,
)
from qilu_common.mqtt.messages import Message, Messages
from qilu_common.mqtt.reconnecting import keep_connected
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import BadReading, ConfigError
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.wire import marks, sparkplug, topics
from qilu_contract.wire.commands import Answer
from qilu_contract.wire.marks import Mark

from qilu_devices.edge import payloads
from qilu_devices.edge.flow import Flow
from qilu_devices.edge.sessions import Sessions
from qilu_devices.fleet import Enterprise, Unit
from qilu_devices.simulation import Sample, Shape
from qilu_devices.transport.disturbance import Sending, Way

WINDOW = 256
"""Messages in flight to the broker a node: enough to hide the way there and back, small enough to repeat."""
FAREWELL_S = 1.0
ALIASES_A_UNIT = 32
RECEIVE_MAXIMUM = 100
"""Commands that the broker may deliver before they are acknowledged: the node acknowledges them as they
come."""
MAX_ANSWERS = 1000
"""Answers to commands that may wait for the host; the oldest goes when one more comes."""
REBIRTH_PAUSE_S = 2.0
"""Rebirths follow each other no faster than this, whatever is commanded."""

_log = structlog.get_logger(__name__)


class _HostState(msgspec.Struct):
    online: bool
    timestamp: int


class _Device:
    """A unit as its node knows it. `last`: the latest acknowledged sample of each shape (until then sample 0,
    None before it). `first_pending`: sample 0 is not acknowledged yet. `born`: its birth was published
    on this connection, or is about to be. `lost`: by the node, which says no more of it until something comes
    again."""

    __slots__ = ("alias", "born", "data_topic", "equipment", "first_pending", "last", "lost", "unit")

    def __init__(self, unit: Unit, alias: int, data_topic: str) -> None:
        self.unit = unit
        self.equipment = CATALOGUE[unit.class_name]
        self.alias = alias
        self.data_topic = data_topic
        self.last: dict[Shape, Sample] | None = None
        self.first_pending = False
        self.born = self.lost = False

    def take(self, sample: Sample) -> None:
        if self.last is None:
            self.last = {}
        self.last[sample.shape] = sample

    def dated(self) -> list[payloads.Dated]:
        """Each signal's last value and its time. Sample 0 has all signals."""
        assert self.last is not None
        values: dict[int, payloads.Dated] = {}
        for sample in sorted(self.last.values(), key=lambda sample: sample.ts_ms):
            for position, value in zip(sample.shape.positions, sample.values, strict=True):
                values[position] = (sample.ts_ms, value)
        return [values[position] for position in range(len(self.equipment.signals))]


_NODE_BIRTH, _MARK = "NBIRTH", "mark"
_InFlight = (
    Sample | Sending | Answer | _Device | str
)  # a reading, an answer, a unit's birth, the node's birth or a mark
Commanded = Callable[[Unit | None, str, bytes], Answer | None]
"""Who carries out commands: takes the unit (None: not one of ours), its id and a DCMD's payload; None answers
what is no Sparkplug payload."""


def made_ms(item: Sample | Sending) -> int:
    """When a reading was sampled, whatever its timestamp says."""
    return item.made_ms if isinstance(item, Sending) else item.ts_ms


class EdgeNode:
    """See the module. `progress` is called whenever the node's numbers change for the better, or its
    connection changes. A `historical` node publishes on the topics of
    history, and all its data say that they are of the past."""

    def __init__(
        self,
        enterprise: Enterprise,
        units: Sequence[Unit],
        broker: BrokerAddress,
        flow: Flow,
        capacity: int,
        connecting: asyncio.Semaphore,
        progress: Callable[[], None],
        host: str = topics.HOST_ID,
        strict: bool = False,
        commanded: Commanded = lambda _unit, _id, _payload: None,
        historical: bool = False,
        sessions: Sessions | None = None,
    ) -> None:
        """`strict`: Sparkplug to the letter. Births and data go at QoS 0, so a reading counts as acknowledged
        when it is sent. `sessions` numbers the connections."""
        self._commanded, self._historical = commanded, historical
        self.id = enterprise.id
        self._group = enterprise.county
        self._root = topics.HISTORY if historical else ""
        self._state_topic = topics.state(host)
        self._strict = strict
        self._leaving = asyncio.Event()
        self._broker, self._flow, self._capacity = broker, flow, capacity
        self._connecting, self._progress = connecting, progress
        self._devices: dict[str, _Device] = {}
        # The same distance in every node, so that units at the same place in their nodes share a layout.
        distance = max(ALIASES_A_UNIT, *(len(CATALOGUE[unit.class_name].signals) for unit in units))
        for number, unit in enumerate(units):
            topic = self._topic("DDATA", unit.id)
            self._devices[unit.id] = _Device(unit, number * distance, topic)

        self._buffer: deque[Sample | Sending] = deque()
        self._in_order = True  # the buffer, by when it was made
        self._disconnecting = False
        self._births: deque[_Device] = deque()
        self._answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)
        self._node_birth_due = False
        self._mark_due: int | None = None
        self._historical_until_ms = 0  # what was sampled up to here waited for the connection or the host
        self._connection: Connection | None = None
        self._publishing: asyncio.Handle | None = None
        self._ever_connected = False
        self._refused = False  # a message, ever
        self._host_online = False
        self._host_since_ms = -1
        self._sessions = sessions if sessions is not None else Sessions(None, [self.id])
        self._bd_seq = 0
        self._seq = 0
        self._rebirth_at_s = float("-inf")
        self._rebirth_timer: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()

        self.made = 0
        self.acked = 0
        self.dropped = 0
        self.unfit = 0
        """Of those acknowledged, what was sent so that a gateway must refuse it."""
        self.births = 0
        self.bad_commands = 0
        self.made_until_ms = 0

    @property
    def online(self) -> bool:
        """Connected, and the host takes readings."""
        return self._connection is not None and self._host_online

    @property
    def pending(self) -> int:
        """Readings made that are neither acknowledged nor dropped."""
        return self.made - self.acked - self.dropped

    @property
    def acked_through_ms(self) -> int:
        """Every reading sampled up to here is acknowledged (or dropped, if `dropped` says so)."""
        waiting = [made_ms(item) for item in self._unacknowledged()]
        ahead = islice(self._buffer, 1 if self._in_order else None)
        waiting += [made_ms(item) for item in ahead if isinstance(item, Sample) or item.counts]
        firsts = [
            sample.ts_ms
            for device in self._devices.values()
            if device.first_pending and device.last
            for sample in device.last.values()
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
        else:
            self._buffer.append(sample)
            if len(self._buffer) > self._capacity:
                self._bound()
        if not device.born and not device.lost:
            self._bear(device)
        if self._publishing is None:
            self.wake()

    def _bear(self, device: _Device) -> None:
        """Queue the birth of a unit that has none on this connection, or that the node had lost: of its first
        reading, or of one whose earlier readings an earlier process has published."""
        if self.online and device.last is not None:
            device.born, device.lost = True, False
            self._births.append(device)

    def _disturb(self, sending: Sending) -> None:
        self.made += sending.counts
        self.made_until_ms = max(self.made_until_ms, sending.made_ms)
        self._in_order = False
        self._buffer.append(sending)
        device = self._devices[sending.unit.id]
        if not device.born and not device.lost and sending.way is not Way.OFFLINE:
            self._bear(device)
        self._bound()
        self.wake()

    def _disconnect_if_due(self) -> None:
        in_flight = self._unacknowledged()
        if self._disconnecting and not any(isinstance(item, Sending) and item.refused for item in in_flight):
            assert self._connection is not None
            self._connection.lose()

    def skip(self, sample: Sample | Sending) -> None:
        """Take a reading that an earlier process has published, and the broker acknowledged."""
        self.made_until_ms = max(self.made_until_ms, made_ms(sample))
        if isinstance(sample, Sending):
            device = self._devices[sample.unit.id]
            device.lost = sample.way is Way.OFFLINE or (device.lost and not sample.counts)
            if sample.way is Way.SHIFTED:
                device.take(sample.sample)
            self.made += sample.counts
            self.acked += sample.counts
            self.unfit += sample.refused is not None
        else:
            device = self._devices[sample.unit.id]
            device.take(sample)
            device.lost = False
            self.made += 1
            self.acked += 1

    def wake(self) -> None:
        """Look again, in the loop's next turn, whether something can be published."""
        if self._connection is not None and self._publishing is None:
            self._publishing = asyncio.get_running_loop().call_soon(self._publish)

    def mark(self, number: int) -> None:
        """Publish a mark behind what was published so far."""
        self._mark_due = number
        self.wake()

    def stop(self) -> None:
        """Say farewell and end `run`. What is pending stays so."""
        self._stop.set()

    async def run(self) -> None:
        """Connects, publishes, reconnects, until `stop`. Raises ConfigError when the broker refuses us from
        the beginning, or when somebody else takes the connection of a historical node."""
        await keep_connected(
            self._broker, self._use_connection, self._stop, failed=self._on_failure, level=logging.DEBUG
        )

    def _on_failure(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, MqttError) else 0
        if isinstance(error, ConnectRefused) and reason in NOT_AUTHORISED and not self._ever_connected:
            raise self._broker.login_refused() from error
        if reason == SESSION_TAKEN_OVER and self._historical:  # the present has priority
            raise ConfigError(
                f"Another process publishes as edge node {self.id}: stop it, and run the backfill again, "
                "which continues where it was."
            ) from error
        if isinstance(error, MessageRefused) and not self._refused:
            self._refused = True
            _log.warning("broker_refuses_messages", node=self.id, error=str(error))

    # -- one connection

    async def _use_connection(self) -> None:
        self._bd_seq = self._sessions.next(self.id)
        death_topic = self._topic("NDEATH")
        death = payloads.node_death(self._bd_seq, self.made_until_ms)
        options = ConnectOptions(self.id, Will(death_topic, death), receive_maximum=RECEIVE_MAXIMUM)
        self._disconnecting = False
        self._leaving.clear()
        self._host_online, self._host_since_ms = False, -1
        async with self._connecting:
            if self._stop.is_set():
                return
            connection = await connect(
                self._broker, options, take=self._on_messages, acked=self._on_acked, moved=self.wake
            )
            self._connection = connection
            self._ever_connected = True
        async with connection:  # should it end without time for a farewell, the broker publishes the will
            try:
                await self._until_leaving(connection)
                async with asyncio.timeout(FAREWELL_S):
                    await connection.publish(death_topic, death)
            except MqttError:
                if not self._disconnecting:
                    raise
            finally:
                self._take_back()
                self._connection = None
                self._host_online = False
                if self._rebirth_timer is not None:
                    self._rebirth_timer.cancel()
                    self._rebirth_timer = None
                self._progress()

    async def _until_leaving(self, connection: Connection) -> None:
        """Returns when the node stops or the host goes offline. Raises MqttError when the connection ends."""
        commands = (
            topics.sparkplug("NCMD", self._group, self.id),
            topics.sparkplug("DCMD", self._group, self.id, "+"),
        )
        await connection.subscribe([*commands, self._state_topic])
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(event.wait()) for event in (self._stop, self._leaving)
        ]
        try:
            await asyncio.wait({*ends, connection.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        if not connection.is_open:
            raise connection.ended.result()

    def _publish(self) -> None:
        """Publishes whatever may be published now."""
        self._publishing = None
        connection = self._connection
        if connection is None or not self._host_online or self._stop.is_set() or self._disconnecting:
            return
        limit_ms = self._flow.limit_ms()
        sent: list[_InFlight] = []
        for _ in range(min(WINDOW - connection.in_flight, connection.room)):
            message = self._next(limit_ms)
            if message is None:
                break
            if self._strict:
                topic, payload, item = message
                connection.send_qos0(topic, payload)
                sent.append(item)
            else:
                connection.send_qos1(*message)
        connection.flush()
        if sent:
            self._on_acked(sent)

    def _next(self, limit_ms: int) -> tuple[str, bytes, _InFlight] | None:
        """The next message, births before data, none from beyond `limit_ms`."""
        if self._node_birth_due:
            self._node_birth_due = False
            self._seq = 0
            topic = self._topic("NBIRTH")
            return topic, payloads.node_birth(self._bd_seq, self.made_until_ms, 0), _NODE_BIRTH
        if self._mark_due is not None:
            mark, self._mark_due = Mark(self._mark_due), None
            topic = self._topic("NDATA")
            return topic, payloads.mark(mark, self.made_until_ms, self._next_seq()), _MARK
        if self._answers:
            answer = self._answers.popleft()
            topic = self._topic("NDATA")
            return topic, payloads.answer(answer, self._next_seq()), answer
        if self._births:
            device = self._births[0]
            dated = device.dated()
            if max(ts_ms for ts_ms, _ in dated) > limit_ms:
                return None
            self._births.popleft()
            self.births += 1
            topic = self._topic("DBIRTH", device.unit.id)
            return (
                topic,
                payloads.device_birth(device.equipment, device.alias, dated, self._next_seq()),
                device,
            )
        if not self._buffer or self._buffer[0].ts_ms > limit_ms:
            return None
        sample = self._buffer.popleft()
        device = self._devices[sample.unit.id]
        if isinstance(sample, Sending):
            if sample.way is Way.DISCONNECT:
                self._disconnecting = True
                self._disconnect_if_due()
                return None
            if sample.way is Way.OFFLINE:
                was_born, device.born, device.lost = device.born, False, True
                if not was_born:  # nobody has heard of it on this connection
                    return self._next(limit_ms)
                topic = self._topic("DDEATH", device.unit.id)
                return topic, payloads.device_death(sample.ts_ms, self._next_seq()), sample
        if device.lost and (isinstance(sample, Sample) or sample.way is not Way.GARBAGE):  # no longer
            self._buffer.appendleft(sample)
            self._bear(device)
            return self._next(limit_ms)
        if isinstance(sample, Sending):
            return *self._encode(sample), sample
        historical = self._historical or sample.ts_ms <= self._historical_until_ms
        return (
            device.data_topic,
            payloads.layout(sample.unit.class_name, sample.shape, device.alias, historical).encode(
                sample, self._next_seq()
            ),
            sample,
        )

    def _encode(self, sending: Sending) -> tuple[str, bytes]:
        sample = sending.sample
        if sending.way is Way.GARBAGE:
            return self._topic("NDATA"), payloads.garbage(sample)
        device, seq = self._devices[sample.unit.id], self._next_seq()
        if sending.way is Way.WRONG_TYPE:
            return device.data_topic, payloads.data(sample, device.alias, seq, False, as_text=sending.signal)
        late = sending.way is Way.LATE or sending.made_ms <= self._historical_until_ms
        historical = self._historical or late
        layout = payloads.layout(sample.unit.class_name, sample.shape, device.alias, historical)
        return device.data_topic, layout.encode(sample, seq)

    def _topic(self, type_: topics.MessageType, unit: str | None = None) -> str:
        return self._root + topics.sparkplug(type_, self._group, self.id, unit)

    def _next_seq(self) -> int:
        self._seq = (self._seq + 1) % 256
        return self._seq

    def _on_acked(self, items: list[_InFlight]) -> None:
        for item in items:
            if isinstance(item, Sample):
                self.acked += 1
                self._devices[item.unit.id].take(item)
            elif isinstance(item, Sending):
                self.acked += item.counts
                self.unfit += item.refused is not None
                if item.way is Way.SHIFTED:  # the others say nothing, or nothing newer than what was said
                    self._devices[item.unit.id].take(item.sample)
            elif isinstance(item, _Device) and item.first_pending:
                item.first_pending = False
                self.acked += 1
        if self._disconnecting:
            self._disconnect_if_due()
        elif self._buffer or self._births or self._answers:
            if self._strict:  # called by `_publish`: others first
                self.wake()
            else:
                self._publish()
        self._progress()

    def _unacknowledged(self) -> list[Sample | Sending]:
        """What was published on this connection, in that order."""
        items = self._connection.unacknowledged if self._connection is not None else []
        return [item for item in items if isinstance(item, Sample | Sending)]

    def _take_back(self) -> None:
        """What was published but not acknowledged goes back to the head of the buffer, in time order."""
        items = self._connection.unacknowledged if self._connection is not None else []
        answers = [item for item in items if isinstance(item, Answer)]
        self._answers = deque([*answers, *self._answers], MAX_ANSWERS)
        self._buffer.extendleft(reversed(self._unacknowledged()))
        self._births.clear()
        self._node_birth_due, self._mark_due = False, None
        self._flow.forget()
        self._bound()

    def _bound(self) -> None:
        while len(self._buffer) > self._capacity:
            item = self._buffer.popleft()
            self.dropped += item.counts if isinstance(item, Sending) else 1

    # -- what others tell us

    def _on_messages(self, messages: Messages) -> None:
        for message in messages:
            self._on_message(message)
        if self._connection is not None:
            self._connection.acknowledge(message.mid for message in messages if message.mid)

    def _on_message(self, message: Message) -> None:
        """STATE of the host and commands to this node. Whatever else comes is counted and ignored."""
        if message.topic == self._state_topic:
            self._on_state(message.payload)
        elif message.topic == topics.sparkplug("NCMD", self._group, self.id):
            self._on_command(message.payload)
        else:
            self._on_device_command(message.topic, message.payload)

    def _on_state(self, payload: bytes) -> None:
        try:
            state = msgspec.json.decode(payload, type=_HostState)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.bad_commands += 1
            return
        if state.timestamp > MAX_TIME_MS:  # no host could ever say anything newer
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
                self._historical_until_ms = made_ms(self._buffer[-1])
            self._be_born()
        else:
            self._births.clear()
            self._node_birth_due, self._mark_due = False, None
            self._leaving.set()
        self._progress()

    def _on_command(self, payload: bytes) -> None:
        try:
            command = sparkplug.decode(payload)
        except BadReading:
            self.bad_commands += 1
            return
        mark = marks.parse(command)
        if mark is not None:
            self._flow.answered(mark)
        elif not any(metric.name == payloads.REBIRTH and metric.value is True for metric in command.metrics):
            self.bad_commands += 1
        elif self._host_online and self._rebirth_timer is None:
            loop = asyncio.get_running_loop()
            wait_s = max(0.0, self._rebirth_at_s + REBIRTH_PAUSE_S - loop.time())
            self._rebirth_timer = loop.call_later(wait_s, self._rebirth)

    def _on_device_command(self, topic: str, payload: bytes) -> None:
        try:
            unit = topics.parse(topic)
        except BadReading:
            self.bad_commands += 1
            return
        assert isinstance(unit, topics.SparkplugTopic)
        assert unit.device is not None
        device = self._devices.get(unit.device)
        answer = self._commanded(device.unit if device is not None else None, unit.device, payload)
        if answer is None:
            self.bad_commands += 1
            return
        self._answers.append(answer)
        self.wake()

    def _rebirth(self) -> None:
        self._rebirth_timer = None
        if self._host_online:
            self._be_born()

    def _be_born(self) -> None:
        self._rebirth_at_s = asyncio.get_running_loop().time()
        for device in self._devices.values():
            device.born = device.last is not None and not device.lost
        self._births = deque(device for device in self._devices.values() if device.born)
        self._node_birth_due = True
        self.wake()
