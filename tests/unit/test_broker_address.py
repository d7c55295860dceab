from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from qilu_common.broker import BrokerAddress, Node
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_common.mqtt.errors import MqttError
from qilu_contract.errors import ConfigError


def test_a_list_of_hosts_shares_log_in_and_default_port() -> None:
    address = BrokerAddress.from_url("mqtt://me:pass%2Cword@a,b:1884,[::1]")
    assert address.nodes == (Node("a", 1883), Node("b", 1884), Node("::1", 1883))
    assert (address.user, address.password) == ("me", "pass,word")
    assert str(address) == "a:1883,b:1884,::1:1883"


@pytest.mark.parametrize(
    "url", ["mqtt://a,,b", "mqtt://a,b:many", "mqtt://,", "mqtt://a,b/topic", "amqp://a,b"]
)
def test_a_list_that_names_no_broker_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no broker"):
        BrokerAddress.from_url(url)


async def test_connecting_goes_on_to_the_next_node() -> None:
    reached = [0, 0]

    def server(number: int) -> asyncio.Protocol:
        class Refusing(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                reached[number] += 1
                transport.close()

        return Refusing()

    loop = asyncio.get_running_loop()
    servers = [
        await loop.create_server(lambda number=number: server(number), "127.0.0.1", 0) for number in (0, 1)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    address = BrokerAddress.from_url(f"mqtt://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}")
    for _ in range(3):
        with suppress(MqttError):
            await connect(address, ConnectOptions("one"))
    assert reached == [3, 3]
    for each in servers:
        each.close()
        await each.wait_closed()
