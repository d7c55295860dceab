"""The programme's way to the broker: one connection under the fleet's identity, which speaks for equipment
that joins.

A unit that joins says one reading, as plain JSON: births would cost the gateway an alias table of each unit,
for nothing. Messages go out at QoS 1, only while the gateway's STATE is online; what a broken connection left
open is published again, which stores nothing twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

import msgspec
import structlog
from mqttium.api import AsyncClient, PublishMessage
from mqttium.errors import MQTTError, PublishBatchError
from mqttium.types import Message
from qilu_contract import topics
from qilu_contract.errors import ConfigError, QiluError
from qilu_devices.broker import Broker

STATE_WAIT_S = 120.0
"""How long a gateway may be away, or the broker, before the run gives up."""
BATCH_S = 120.0
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
_NOT_AUTHORISED = frozenset({0x86, 0x87})

log = structlog.get_logger()


class _HostState(msgspec.Struct):
    online: bool
    timestamp: int


class Uplink:
    """Opened by `async with`; connects with the first `publish` and again when a connection breaks."""

    def __init__(self, broker: str) -> None:
        self._broker = Broker.from_url(broker)
        self._client: AsyncClient | None = None
        self._online = asyncio.Event()
        self._host_since_ms = -1
        self.republished = 0
        """Messages that went out again because a connection broke."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._hang_up()

    async def publish(self, messages: Sequence[PublishMessage]) -> None:
        """Returns when the broker has taken over every message. Raises ConfigError when it refuses us or one
        of them, QiluError when broker or gateway stay away."""
        loop = asyncio.get_running_loop()
        deadline_s, delay_s = loop.time() + STATE_WAIT_S, RETRY_MIN_S
        while True:
            try:
                client = await self._connected()
                async with asyncio.timeout_at(deadline_s):
                    await self._online.wait()
                async with asyncio.timeout(BATCH_S):
                    await (await client.publish_many(messages)).wait()
                return
            except PublishBatchError as error:
                trouble: BaseException = next(iter(error.receipt.failures.values()), error)
            except (MQTTError, OSError, TimeoutError) as error:
                trouble = error
            if getattr(trouble, "reason_code", None) in _NOT_AUTHORISED:
                raise ConfigError(
                    f"The broker {self._broker} refuses us ({trouble}): give the log-in of a fleet, with "
                    "QILU_MQTT_USER and QILU_MQTT_PASSWORD."
                ) from trouble
            if loop.time() > deadline_s:
                raise QiluError(
                    f"The broker {self._broker} or its gateway is away since {STATE_WAIT_S:.0f} s "
                    f"({trouble or type(trouble).__name__}): the same command goes on where the run stands."
                ) from trouble
            log.warning("published again", broker=str(self._broker), error=str(trouble))
            self.republished += len(messages)
            await self._hang_up()
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)

    async def _connected(self) -> AsyncClient:
        if self._client is None:
            client = self._broker.client(f"qilu-programme-{secrets.token_hex(4)}")
            self._online.clear()
            self._host_since_ms = -1
            client.on_message = partial(self._on_message, client)
            try:
                await self._broker.connect(client)
                await client.subscribe(topics.state(), qos=1)
            except BaseException:
                await _disconnect(client)
                raise
            self._client = client
        return self._client

    def _on_message(self, client: AsyncClient, message: Message) -> None:
        if client is not self._client and self._client is not None:
            return
        try:
            state = msgspec.json.decode(message.payload, type=_HostState)
        except msgspec.DecodeError:
            return
        if state.timestamp < self._host_since_ms:
            return  # an older host's will, come late
        self._host_since_ms = state.timestamp
        if state.online:
            self._online.set()
        else:
            self._online.clear()

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _disconnect(client)


async def _disconnect(client: AsyncClient) -> None:
    with contextlib.suppress(TimeoutError, MQTTError, OSError):
        async with asyncio.timeout(1.0):
            await client.disconnect()
