"""The embedded stack's Mosquitto, apart from the stack."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from qilu.brokers import EmbeddedBroker, NodeListener, sole_broker
from qilu.keyring import Keyring
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_contract.errors import ConfigError
from qilu_platform.broker.authority import Authority
from qilu_platform.broker.rules import write_rules

from qilu import brokers


async def test_a_stack_waits_for_the_broker_of_one_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sole_broker(tmp_path) as lock:
        orphan = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", pass_fds=(lock,), stdin=asyncio.subprocess.PIPE
        )
    try:
        monkeypatch.setattr(brokers, "STOP_S", 0.0)
        with pytest.raises(ConfigError, match="still runs"):
            async with sole_broker(tmp_path):
                pass
        monkeypatch.undo()
    finally:
        await orphan.communicate(b"\n")
    async with sole_broker(tmp_path):
        pass


async def test_idle_connections_at_the_listener_for_edge_nodes_keep_no_service_out(
    tmp_path: Path, mosquitto_program: str, free_port: Callable[[], int]
) -> None:
    keyring, home = Keyring(tmp_path / "keys"), tmp_path / "broker"
    keyring.make()
    nodes = NodeListener("127.0.0.1", free_port(), home / "rules")
    authority = Authority.open(tmp_path / "ca")
    authority.ensure_server(home, ["127.0.0.1"])
    write_rules(nodes.rules, authority, [], [])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    async with AsyncExitStack() as stack:
        try:
            broker = EmbeddedBroker("mosquitto", free_port(), home, keyring, tmp_path / "log", nodes)
            await stack.enter_async_context(broker)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", nodes.port)
            stack.callback(writer.close)
        address = BrokerAddress("127.0.0.1", broker.port, False, "gateway", keyring.password("gateway"))
        async with await connect(address, ConnectOptions("gateway")):
            pass
