"""Reconnects to a broker, with backoff after failures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from qilu_common.backoff import Backoff
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.errors import MqttError

LASTING_S = 15.0
"""Duration of a connection after which the backoff is reset."""

log = structlog.get_logger()


async def keep_connected(
    broker: BrokerAddress,
    use: Callable[[], Awaitable[None]],
    stop: asyncio.Event,
    *,
    failed: Callable[[Exception], None] = lambda _: None,
    level: int = logging.WARNING,
) -> None:
    """Call `use` until `stop` is set, with a pause between two calls. `use` connects, works until the
    connection ends, and closes it; it raises MqttError, OSError or TimeoutError, or returns when it wants
    another connection soon.

    `failed` is called with each error; what it raises ends the loop. Errors are logged at `level`, one that
    repeats itself once.
    """
    backoff, loop, logged = Backoff(), asyncio.get_running_loop(), ""
    while not stop.is_set():
        began_s = loop.time()
        try:
            await use()
        except (MqttError, OSError, TimeoutError) as error:
            if stop.is_set():
                return
            failed(error)
            text = str(error) or type(error).__name__
            if text != logged:
                log.log(level, "broker away", broker=str(broker), error=text)
            logged = text
        else:
            backoff.reset()
        if loop.time() - began_s > LASTING_S:
            backoff.reset()
            logged = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(backoff.delay_s()):
                await stop.wait()
