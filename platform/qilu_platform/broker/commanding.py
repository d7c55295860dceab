"""Sends commands to units, and receives their answers.

Commands use QoS 0, as Sparkplug requires: a command to an offline edge node stays `sent`. Answers are data
messages of the edge nodes, at QoS 1, to a session that survives a short outage of the platform.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
from typing import Any

import aiomqtt
import msgspec
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.errors import MqttError
from qilu_common.mqtt.reconnecting import keep_connected
from qilu_contract.errors import BadReading
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.commands import Answer, Command, command_payload, parse_answer
from sqlalchemy import Connection, RowMapping, select, update
from sqlalchemy.exc import SQLAlchemyError

from qilu_platform.database.schema import commands, units
from qilu_platform.database.transactions import Database, DatabaseBusy
from qilu_platform.metrics import Metrics
from qilu_platform.registry import audit_log, security
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.security import Event

log = structlog.get_logger()

TIMEOUT_S = 10.0
SESSION_S = 3600
"""Session expiry: how long the broker keeps answers for an offline platform."""
MAX_WAITING = 10_000
"""Answers that wait for the database; beyond, they are lost and their commands stay `sent`."""
RETRY_S = 5.0


class BrokerAway(Exception):
    """The broker does not take the command; the text says why."""


class Commander:
    """The connection for commands. `run` keeps it and receives answers, until cancelled; `send` works while
    connected."""

    def __init__(self, broker: BrokerAddress, database: Database, metrics: Metrics, port: int) -> None:
        self._broker, self._database, self._metrics = broker, database, metrics
        self._identity = f"qilu-platform-{socket.gethostname()}-{port}"
        self._client: aiomqtt.Client | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def send(self, unit: dict[str, Any], command: Command, id_: str) -> None:
        """Raises BrokerAway."""
        if self._client is None:
            raise BrokerAway(f"the broker {self._broker} is unavailable")
        topic = topics.sparkplug("DCMD", unit["county"], unit["enterprise"], unit["id"])
        body = sparkplug.encode(command_payload(command, id_, wall_ms()), datatypes=False)
        try:
            await self._client.publish(topic, body, qos=0, timeout=TIMEOUT_S)
        except aiomqtt.MqttError as error:
            raise BrokerAway(f"the broker {self._broker} did not take it: {error}") from error

    async def run(self) -> None:
        await keep_connected(self._broker, self._use_connection, asyncio.Event())

    async def _use_connection(self) -> None:
        """Use one connection until it ends. Raises MqttError."""
        try:
            await self._take_answers()
        except aiomqtt.MqttError as error:
            self._metrics.failures.labels("commands").inc()
            raise MqttError(str(error)) from error
        except Exception as error:
            self._metrics.failures.labels("commands").inc()
            log.exception("commands failed, will try again")
            raise MqttError(str(error)) from error

    async def _take_answers(self) -> None:
        lasting = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        lasting.SessionExpiryInterval = SESSION_S
        node = random.choice(self._broker.nodes)
        async with aiomqtt.Client(
            node.host,
            node.port,
            username=self._broker.user,
            password=self._broker.password,
            identifier=self._identity,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=False,
            properties=lasting,
            tls_context=self._broker.tls_context(),
            timeout=TIMEOUT_S,
            max_queued_incoming_messages=MAX_WAITING,
        ) as client:
            await client.subscribe(f"{topics.NAMESPACE}/+/NDATA/+", qos=1)
            log.info("commands can be sent", broker=str(self._broker))
            self._client = client
            try:
                async for message in client.messages:
                    await self._take(str(message.topic), message.payload)
            finally:
                self._client = None

    async def _take(self, topic: str, body: object) -> None:
        """An edge node's data; all but answers is somebody else's."""
        try:
            place = topics.parse(topic)
            answer = parse_answer(sparkplug.decode(body)) if isinstance(body, bytes) else None
        except BadReading:
            return  # the gateway says so
        if answer is None or not isinstance(place, topics.SparkplugTopic):
            return
        while True:
            try:
                if not await self._database.write(lambda found: note(found, place, answer)):
                    self._metrics.foreign_answers.inc()
                return
            except (SQLAlchemyError, DatabaseBusy) as error:
                self._metrics.failures.labels("commands").inc()
                log.warning("an answer waits for the database", error=str(error))
                await asyncio.sleep(RETRY_S)


def enter(connection: Connection, caller: Caller, unit: str, command: dict[str, Any]) -> str:
    """A new command in the books, and its id."""
    id_ = f"cmd-{secrets.token_hex(8)}"
    connection.execute(
        commands.insert().values(
            id=id_,
            unit=unit,
            at_ms=wall_ms(),
            key=caller.key,
            command=msgspec.json.encode(command).decode(),
            state="sent",
        )
    )
    audit_log.record(connection, caller, "commanded", f"units/{unit}", id=id_, **command)
    return id_


def note(connection: Connection, place: topics.SparkplugTopic, answer: Answer) -> bool:
    """Record a unit's answer, once; returns False, and does nothing, if the edge node is not the unit's."""
    owner = connection.execute(
        select(units.c.county, units.c.enterprise).where(units.c.id == answer.unit)
    ).one_or_none()
    if owner is None or tuple(owner) != (place.group, place.node):
        wrong = Event("foreign_answer", place.node, answer.unit, f"To command {answer.id}.", place.group)
        security.record(connection, [wrong])
        return False
    state = "accepted" if answer.accepted else "refused"
    if not answer.accepted:
        refused = Event("refused_command", place.node, answer.unit, answer.reason, place.group)
        security.record(connection, [refused])
    settle(connection, answer.id, state, answer.reason or None, answer.at_ms, answer.unit)
    return True


def settle(
    connection: Connection,
    id_: str,
    state: str,
    reason: str | None,
    holds_from_ms: int | None = None,
    unit: str | None = None,
) -> None:
    mine = [commands.c.id == id_, commands.c.state == "sent"]
    if unit is not None:
        mine.append(commands.c.unit == unit)
    values = {
        "state": state,
        "reason": reason,
        "holds_from_ms": holds_from_ms if state == "accepted" else None,
    }
    connection.execute(update(commands).where(*mine).values(values))


def one(connection: Connection, id_: str) -> dict[str, Any]:
    return _shown(connection.execute(select(commands).where(commands.c.id == id_)).one()._mapping)


def of_unit(connection: Connection, unit: str, limit: int) -> list[dict[str, Any]]:
    """A unit's commands, the newest first."""
    query = select(commands).where(commands.c.unit == unit)
    newest = query.order_by(commands.c.at_ms.desc(), commands.c.id).limit(limit)
    return [_shown(row._mapping) for row in connection.execute(newest)]


def _shown(row: RowMapping) -> dict[str, Any]:
    return dict(row) | {"command": msgspec.json.decode(row["command"])}
