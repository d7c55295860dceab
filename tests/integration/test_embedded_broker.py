"""The embedded stack's Mosquitto, apart from the stack."""

from __future__ import annotations

import asyncio
import resource
import ssl
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from gateway_world import eventually
from qilu.brokers import EmbeddedBroker, NodeListener, sole_broker
from qilu.keyring import Keyring
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_contract.errors import ConfigError
from qilu_platform.broker.authority import Authority, certificate_pem, key_pem, make_key
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


def edge_listener(folder: Path, home: Path, port: int) -> tuple[Keyring, NodeListener, Authority]:
    """Passwords, and the listener for edge nodes of a broker in `home`, with the authority that it trusts."""
    keyring = Keyring(folder / "keys")
    keyring.make()
    nodes = NodeListener("127.0.0.1", port, home / "rules")
    authority = Authority.open(folder / "ca")
    authority.ensure_server(home, ["127.0.0.1"])
    write_rules(nodes.rules, authority, [], [])
    return keyring, nodes, authority


async def test_idle_connections_at_the_listener_for_edge_nodes_keep_no_service_out(
    tmp_path: Path, mosquitto_program: str, free_port: Callable[[], int]
) -> None:
    home = tmp_path / "broker"
    keyring, nodes, _ = edge_listener(tmp_path, home, free_port())
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


async def test_refused_certificates_are_counted(
    tmp_path: Path, mosquitto_program: str, free_port: Callable[[], int]
) -> None:
    home = tmp_path / "broker"
    keyring, nodes, authority = edge_listener(tmp_path, home, free_port())
    key, now = make_key(), datetime.now(UTC)
    ended = authority.sign_node(key.public_key(), "works", now - timedelta(days=2), now - timedelta(days=1))
    (tmp_path / "works.key").write_bytes(key_pem(key))
    (tmp_path / "works.crt").write_bytes(certificate_pem(ended))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca" / "ca.crt"))
    context.load_cert_chain(tmp_path / "works.crt", tmp_path / "works.key")
    counts: list[int] = []
    async with EmbeddedBroker("mosquitto", free_port(), home, keyring, tmp_path / "log", nodes) as broker:
        broker.refused = counts.append
        for _ in range(3):
            with suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", nodes.port, ssl=context)
                # By TLS 1.3 a client learns of it after its own handshake. If it closes before, the broker
                # may see the end of the connection first, and not the certificate.
                await reader.read()
                writer.close()
        await eventually(lambda: sum(counts) == 3, "counted")
