"""Readings that a broker refuses, or that nobody subscribed to, are no success for who sends them once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from qilu.publish import publish
from qilu.uplink import Uplink
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_contract.errors import ConfigError, QiluError
from qilu_contract.wire import topics

TOPIC = topics.telemetry("370202", "370202-e00001", "m1")


async def test_a_reading_by_hand_fails_when_the_broker_refuses_it(ruled: Any) -> None:
    with pytest.raises(QiluError, match="rejected a message"):
        await publish(ruled.url, TOPIC, {"power_in": 11.0}, None)


async def test_a_reading_by_hand_fails_when_nobody_subscribed_to_it(mosquitto: Any) -> None:
    mosquitto.start()
    with pytest.raises(QiluError, match="nobody subscribes"):
        await publish(mosquitto.url, "test/nobody", {"power_in": 11.0}, None)


async def test_the_programme_stops_when_the_broker_refuses_a_units_reading(ruled: Any) -> None:
    host = await connect(BrokerAddress.from_url(ruled.url), ConnectOptions("host"))
    await host.publish(topics.state(), b'{"online": true, "timestamp": 1}', retain=True)
    uplink = Uplink(ruled.url)
    try:
        with pytest.raises(ConfigError, match="refuses us"):
            await asyncio.wait_for(uplink.publish([TOPIC], [b"{}"]), 60)
    finally:
        await uplink.__aexit__(None, None, None)
        await host.disconnect()
