"""A simulated Sparkplug edge node: one enterprise, one connection, all its units.

Readings enter by `offer` and wait in the `backlog`. They are published only while the connection is up and
the host's STATE is online, after the births. A PUBACK that rejects a message ends the connection, and the
reading is published again on the next one. When the host goes offline, the node publishes its death,
disconnects, and connects again.

Transport faults (`disturbance`) take the same path. A connection is never broken off on purpose while a
message is in flight that the gateway will refuse: published twice, it would be two dead letters.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

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
from qilu_contract.errors import BadReading, ConfigError
from qilu_contract.wire import marks, sparkplug, topics
from qilu_contract.wire.commands import Answer
from qilu_contract.wire.host_state import State

from qilu_devices.edge.backlog import Backlog, Item
from qilu_devices.edge.flow import Flow
from qilu_devices.edge.messages import NodeMessages
from qilu_devices.edge.sessions import Sessions
from qilu_devices.fleet import Enterprise, Unit
from qilu_devices.simulation import Sample
from qilu_devices.transport.disturbance import Sending

WINDOW = 256
"""Maximum number of messages in flight per node: enough to hide the round trip, few enough to publish
again."""
FAREWELL_S = 1.0
RECEIVE_MAXIMUM = 100
"""Commands that the broker may deliver before they are acknowledged."""
REBIRTH_PAUSE_S = 2.0
"""Minimum time between two rebirths, however many are requested."""

_log = structlog.get_logger(__name__)


class Later(Enum):
    """Mark of a command that is answered later, by `EdgeNode.answer`."""

    LATER = auto()


CommandHandler = Callable[[Unit | None, str, bytes], Answer | Later | None]
"""Carries out a command: takes the unit (None: not one of this node's), its id, and the DCMD's payload.
Returns None for a malformed payload."""


def _refuse_none(_unit: Unit | None, _id: str, _payload: bytes) -> None:
    return None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Settings that the edge nodes of a run share. `capacity`: readings that a node keeps. `connecting`
    limits how many connect at once, `sessions` numbers their connections. `strict`: Sparkplug to the letter:
    births and data use QoS 0, so a reading counts as acknowledged when it is sent. `historical`: data of the
    past, on the history topics."""

    broker: BrokerAddress
    capacity: int
    strict: bool = False
    historical: bool = False
    connecting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    sessions: Sessions | None = None


class EdgeNode:
    """A simulated Sparkplug edge node; see the module. `progress` is called when the backlog shrinks, and
    when the connection changes."""

    def __init__(
        self,
        enterprise: Enterprise,
        units: Sequence[Unit],
        config: NodeConfig,
        flow: Flow,
        progress: Callable[[], None],
        on_command: CommandHandler = _refuse_none,
    ) -> None:
        self.id = enterprise.id
        self._group = enterprise.county
        self._config, self._flow = config, flow
        self._progress, self._on_command = progress, on_command
        self._messages = NodeMessages(self._group, self.id, config.historical)
        self.backlog = Backlog(units, self._messages, config.capacity)
        self._state_topic = topics.state(flow.host)
        self._command_topic = topics.sparkplug("NCMD", self._group, self.id)
        self._connection: Connection | None = None
        self._publishing: asyncio.Handle | None = None
        self._ever_connected = False
        self._refused = False  # a message, ever
        self._host = State(False, -1)
        self._sessions = config.sessions if config.sessions is not None else Sessions(None, [self.id])
        self._bd_seq = 0
        self._rebirth_at_s = float("-inf")
        self._rebirth_timer: asyncio.TimerHandle | None = None
        self._stop = asyncio.Event()
        self._leaving = asyncio.Event()

    @property
    def online(self) -> bool:
        """Whether the node is connected and the host is online."""
        return self.backlog.online

    @property
    def acked(self) -> int:
        """Readings that the broker has acknowledged."""
        return self.backlog.acked

    @property
    def pending(self) -> int:
        """Readings made that are neither acknowledged nor dropped."""
        return self.backlog.pending

    @property
    def acked_through_ms(self) -> int:
        """Every reading sampled up to here is acknowledged (or dropped, if the backlog's `dropped` says
        so)."""
        return self.backlog.acked_through_ms(self._unacknowledged())

    def offer(self, sample: Sample | Sending) -> None:
        """Take a reading, like `Backlog.offer`. Never blocks."""
        self.backlog.offer(sample)
        if self._publishing is None:
            self.wake()

    def wake(self) -> None:
        """Check in the loop's next turn whether something can be published."""
        if self._connection is not None and self._publishing is None:
            self._publishing = asyncio.get_running_loop().call_soon(self._publish)

    def answer(self, answer: Answer) -> None:
        """Publish the answer to a command."""
        self.backlog.add_answer(answer)
        self.wake()

    def mark(self, number: int) -> None:
        """Publish a mark after what was published so far."""
        self.backlog.add_mark(number)
        self.wake()

    def stop(self) -> None:
        """Publish the death and end `run`. Pending readings stay pending."""
        self._stop.set()

    async def run(self) -> None:
        """Connects, publishes and reconnects until `stop`. Raises ConfigError when the broker rejects the
        first log-in, or when another process takes over the connection of a historical node."""
        await keep_connected(
            self._config.broker,
            self._use_connection,
            self._stop,
            failed=self._on_failure,
            level=logging.DEBUG,
        )

    def _on_failure(self, error: Exception) -> None:
        reason = error.reason if isinstance(error, MqttError) else 0
        if isinstance(error, ConnectRefused) and reason in NOT_AUTHORISED and not self._ever_connected:
            raise self._config.broker.login_refused() from error
        if reason == SESSION_TAKEN_OVER and self._config.historical:  # the present has priority
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
        death = self._messages.death(self._bd_seq, self.backlog.made_until_ms)
        options = ConnectOptions(self.id, Will(*death), receive_maximum=RECEIVE_MAXIMUM)
        self.backlog.disconnect_due = False
        self._leaving.clear()
        self._host = State(False, -1)
        async with self._config.connecting:
            if self._stop.is_set():
                return
            connection = await connect(
                self._config.broker, options, take=self._on_messages, acked=self._on_acked, moved=self.wake
            )
            self._connection = connection
            self._ever_connected = True
        async with connection:  # if it ends before the death is published, the broker publishes the will
            try:
                await self._until_leaving(connection)
                async with asyncio.timeout(FAREWELL_S):
                    await connection.publish(*death)
            except MqttError:
                if not self.backlog.disconnect_due:
                    raise
            finally:
                self.backlog.online = False
                self.backlog.take_back(self._unacknowledged())
                self._flow.forget()
                self._connection = None
                if self._rebirth_timer is not None:
                    self._rebirth_timer.cancel()
                    self._rebirth_timer = None
                self._progress()

    async def _until_leaving(self, connection: Connection) -> None:
        """Returns when the node stops or the host goes offline. Raises MqttError when the connection ends."""
        commands = topics.sparkplug("DCMD", self._group, self.id, "+")
        await connection.subscribe([self._command_topic, commands, self._state_topic])
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
        connection, backlog = self._connection, self.backlog
        if connection is None or not backlog.online or self._stop.is_set() or backlog.disconnect_due:
            return
        limit_ms = self._flow.limit_ms()
        sent: list[Item] = []
        for _ in range(min(WINDOW - connection.in_flight, connection.room)):
            message = backlog.next(self._bd_seq, limit_ms)
            if message is None:
                break
            if self._config.strict:
                topic, payload, item = message
                connection.send_qos0(topic, payload)
                sent.append(item)
            else:
                connection.send_qos1(*message)
        self._disconnect_if_due()
        connection.flush()
        if sent:
            self._on_acked(sent)

    def _on_acked(self, items: list[Item]) -> None:
        self.backlog.acknowledged(items)
        if self.backlog.disconnect_due:
            self._disconnect_if_due()
        elif self.backlog.has_more:
            if self._config.strict:  # called by `_publish`: others first
                self.wake()
            else:
                self._publish()
        self._progress()

    def _disconnect_if_due(self) -> None:
        if self.backlog.disconnect_due and self._connection is not None:
            in_flight = self._unacknowledged()
            if not any(isinstance(item, Sending) and item.refused for item in in_flight):
                self._connection.lose()

    def _unacknowledged(self) -> list[Any]:
        """The items that were published on this connection, in order."""
        return self._connection.unacknowledged if self._connection is not None else []

    # -- what the host says

    def _on_messages(self, messages: Messages) -> None:
        for message in messages:
            self._on_message(message)
        if self._connection is not None:
            self._connection.acknowledge(message.mid for message in messages if message.mid)

    def _on_message(self, message: Message) -> None:
        """STATE of the host and commands to this node. Everything else is counted and ignored."""
        if message.topic == self._state_topic:
            self._on_state(message.payload)
        elif message.topic == self._command_topic:
            self._on_node_command(message.payload)
        else:
            self._on_device_command(message.topic, message.payload)

    def _on_state(self, payload: bytes) -> None:
        state = State.decode(payload)
        if state is None or state.timestamp < self._host.timestamp:
            return  # malformed, or the will of an older connection of the host
        before, self._host = self._host, state
        if state.online == before.online or self._leaving.is_set():  # STATE is retained: it comes again
            return
        self.backlog.online = state.online and self._connection is not None
        if state.online:
            self.backlog.mark_late()
            self._be_born()
        else:
            self.backlog.forget_births()
            self._leaving.set()
        self._progress()

    def _on_node_command(self, payload: bytes) -> None:
        try:
            command = sparkplug.decode(payload)
        except BadReading:
            return
        mark = marks.parse(command)
        if mark is not None:
            self._flow.answered(mark)
            return
        rebirth = any(metric.name == sparkplug.REBIRTH and metric.value is True for metric in command.metrics)
        if rebirth and self.backlog.online and self._rebirth_timer is None:
            loop = asyncio.get_running_loop()
            wait_s = max(0.0, self._rebirth_at_s + REBIRTH_PAUSE_S - loop.time())
            self._rebirth_timer = loop.call_later(wait_s, self._rebirth)

    def _on_device_command(self, topic: str, payload: bytes) -> None:
        try:
            target = topics.parse(topic)
        except BadReading:
            return
        assert isinstance(target, topics.SparkplugTopic)
        assert target.device is not None
        device = self.backlog.devices.get(target.device)
        answer = self._on_command(device.unit if device is not None else None, target.device, payload)
        if isinstance(answer, Answer):
            self.answer(answer)

    def _rebirth(self) -> None:
        self._rebirth_timer = None
        if self.backlog.online:
            self._be_born()

    def _be_born(self) -> None:
        self._rebirth_at_s = asyncio.get_running_loop().time()
        self.backlog.add_births()
        self.wake()
