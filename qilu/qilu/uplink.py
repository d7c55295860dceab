"""The programme's connection to the broker, under the fleet's identity: it publishes for equipment that
joins.

A unit that joins publishes one reading as plain JSON, because births would needlessly cost the gateway an
alias table per unit. Messages are sent at QoS 1, only while the gateway's STATE is online. Messages without a
PUBACK when a connection breaks are published again, which stores nothing twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Self

from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import Connection, connect
from qilu_common.mqtt.errors import NOT_AUTHORISED, MqttError
from qilu_common.mqtt.messages import Messages
from qilu_common.mqtt.reconnecting import keep_connected
from qilu_contract.errors import ConfigError, QiluError
from qilu_contract.wire.host_state import State
from qilu_contract.wire.topics import state as state_topic

AWAY_S = 120.0
"""Time that broker or gateway may be unavailable before the run gives up."""
WINDOW = 2_000
"""Maximum number of messages in flight: enough to hide the round trip."""
STUCK_S = 30.0
"""Time without a PUBACK after which the connection counts as lost."""


class Uplink:
    """Opened by `async with`; connects with the first `publish` and again when a connection breaks."""

    def __init__(self, broker: str) -> None:
        self._broker = BrokerAddress.from_url(broker)
        self._connection: Connection | None = None
        self._online = asyncio.Event()
        self._moved = asyncio.Event()
        self._host_since_ms = -1
        self._open: set[int] = set()
        """Unacknowledged messages, by index in the block."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._hang_up()

    async def publish(self, topics: Sequence[str], payloads: Sequence[bytes]) -> None:
        """Publish each payload on its topic. Returns when the broker has acknowledged every message. Raises
        ConfigError when it rejects the log-in, QiluError when broker or gateway stay unavailable."""
        self._open = set(range(len(topics)))
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        deadline_s, left = loop.time() + AWAY_S, len(topics)

        async def publish() -> None:
            try:
                await self._publish(await self._connected(), topics, payloads, deadline_s)
                done.set()
            except BaseException:
                await self._hang_up()
                raise

        def failed(error: Exception) -> None:
            nonlocal deadline_s, left
            if isinstance(error, MqttError) and error.reason in NOT_AUTHORISED:
                raise ConfigError(
                    f"The broker {self._broker} refuses us ({error}): give the log-in of a fleet, with "
                    "QILU_MQTT_USER and QILU_MQTT_PASSWORD."
                ) from error
            if len(self._open) < left:
                deadline_s, left = loop.time() + AWAY_S, len(self._open)
            elif loop.time() > deadline_s:
                raise QiluError(
                    f"The broker {self._broker} or its gateway has been unavailable for {AWAY_S:.0f} s "
                    f"({error or type(error).__name__}): the same command continues the run."
                ) from error

        await keep_connected(self._broker, publish, done, failed=failed)

    async def _publish(
        self, connection: Connection, topics: Sequence[str], payloads: Sequence[bytes], deadline_s: float
    ) -> None:
        rest = sorted(self._open)
        sent = 0
        while self._open:
            self._moved.clear()
            if not connection.is_open:
                raise connection.ended.result()
            if sent < len(rest):
                async with asyncio.timeout_at(deadline_s):
                    await self._online.wait()
                room = min(connection.room, WINDOW - connection.in_flight)
                for place in rest[sent : sent + max(0, room)]:
                    connection.send_qos1(topics[place], payloads[place], place)
                    sent += 1
                connection.flush()
            if self._open and (sent == len(rest) or connection.in_flight >= WINDOW or connection.room <= 0):
                async with asyncio.timeout(STUCK_S):
                    await self._moved.wait()

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._online.clear()
            self._host_since_ms = -1
            connection = await connect(
                self._broker,
                ConnectOptions(f"qilu-programme-{secrets.token_hex(4)}"),
                take=self._take,
                acked=self._acked,
                moved=self._moved.set,
            )
            connection.ended.add_done_callback(lambda _: self._moved.set())
            self._connection = connection
            await connection.subscribe([state_topic()])
        return self._connection

    def _take(self, messages: Messages) -> None:
        """Handle STATE of the gateway, the only subscription."""
        for message in messages:
            state = State.decode(message.payload)
            if state is None or state.timestamp < self._host_since_ms:
                continue  # the will of an older connection of the host
            self._host_since_ms = state.timestamp
            if state.online:
                self._online.set()
            else:
                self._online.clear()
        if self._connection is not None:
            self._connection.acknowledge([message.mid for message in messages if message.mid])

    def _acked(self, places: list[int]) -> None:
        self._open.difference_update(places)
        self._moved.set()

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()
