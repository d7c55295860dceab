"""OPC UA server: live values, methods and alarms of simulated equipment.

By default only Basic256Sha256 and newer policies are offered, with signature and encryption, to clients whose
certificate is trusted.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from asyncua import Server, ua
from asyncua.common.callback import Callback, CallbackType
from qilu_common.addresses import is_loopback
from qilu_contract.errors import ConfigError

from qilu_devices.doors.opcua.address_space import AddressSpace, UnitNodes
from qilu_devices.doors.opcua.certificates import Pki
from qilu_devices.doors.opcua.conditions import SEVERITY, Conditions
from qilu_devices.doors.serving import Obey
from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample

URI = "urn:clouds-in-qilu:devices"
SECURE = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
]


def _host_and_port(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not url.startswith("opc.tcp://") or host is None:
        raise ConfigError(f"--opcua {url!r} is no address: write opc.tcp://127.0.0.1:4840.")
    return host, 4840 if port is None else port


class OpcuaDoor:
    """An OPC UA server at `url` (opc.tcp://host:port). Raises ConfigError for an address that cannot be used.

    `pki`: the folder of certificates. `insecure`: also admit clients without encryption and log-in, on a
    loopback address only.
    """

    def __init__(self, url: str, pki: Path, insecure: bool = False) -> None:
        self._url, self._pki, self._insecure = url, Pki(pki), insecure
        self._host, self._port = _host_and_port(url)
        if insecure and not is_loopback(self._host):
            raise ConfigError(
                f"--insecure works on a loopback address only, not on {self._host}: use opc.tcp://127.0.0.1:4840."
            )
        self._server: Server | None = None
        self._nodes: dict[str, UnitNodes] = {}
        self._conditions: Conditions | None = None
        self._unread: set[ua.NodeId] = set()
        self._read_whole = asyncio.Event()

    @property
    def address(self) -> str:
        return self._url

    @property
    def read_whole(self) -> asyncio.Event:
        return self._read_whole

    @asynccontextmanager
    async def opened(self, units: Sequence[Unit], obey: Obey) -> AsyncIterator[None]:
        # The library logs every refused client with a traceback.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)
        server = await self._configured()
        self._nodes = await AddressSpace(server, obey).build(units)
        self._conditions = Conditions(server, self._nodes)
        self._conditions.bind()
        self._unread = {id_ for nodes in self._nodes.values() for id_ in nodes.signals}
        server.subscribe_server_callback(CallbackType.ItemSubscriptionCreated, self._subscribed)
        try:
            await server.start()
        except OSError as error:
            raise ConfigError(f"--opcua {self._url} cannot be opened: {error.strerror or error}.") from error
        self._server = server
        try:
            yield
        finally:
            self._server = None
            await server.stop()

    async def _configured(self) -> Server:
        server = Server()
        server.iserver.bind_condition_methods = SEVERITY
        await server.init()
        await server.set_application_uri(URI)
        server.set_server_name("Clouds in Qilu")
        server.set_endpoint(self._url)
        policies = [*SECURE, ua.SecurityPolicyType.NoSecurity] if self._insecure else SECURE
        server.set_security_policy(policies)
        # The certificate of the client's application logs it in; users have no names here.
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        await self._pki.prepare(URI, socket.gethostname())
        await server.load_certificate(self._pki.certificate)
        await server.load_private_key(self._pki.key)
        server.set_certificate_validator(self._pki.validate)
        return server

    def _subscribed(self, event: Callback, _service: object) -> None:
        """Note which signals a client subscribes to."""
        for item in event.request_params.ItemsToCreate:
            self._unread.discard(item.ItemToMonitor.NodeId)
        if not self._unread:
            self._read_whole.set()

    async def take(self, samples: Sequence[Sample]) -> None:
        server, conditions = self._server, self._conditions
        assert server is not None
        assert conditions is not None
        now = datetime.now(UTC)
        for sample in samples:
            for node, value in self._nodes[sample.unit.id].data_values(sample, now):
                await server.write_attribute_value(node, value)
            await conditions.judge(sample)
