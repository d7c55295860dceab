"""Where the broker is and who we are to it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient, PublishMessage
from qilu_contract.errors import ConfigError
from qilu_contract.secrets import secret

CONNECT_TIMEOUT_S = 20.0
KEEPALIVE_S = 30
MAX_PACKET_BYTES = 64 * 1024
"""Nothing that is sent to us is meant to be larger than a command."""


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker's address and our credentials there."""

    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def from_url(cls, url: str) -> Broker:
        """From `mqtt://[user:password@]host[:port]` or `mqtts://…`; without credentials in the URL those of
        the secrets QILU_MQTT_USER and QILU_MQTT_PASSWORD. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"The broker's URL {url!r} cannot be read: {error}.") from error
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError(
                f"The broker's URL {url!r} must look like mqtt://host:1883 or mqtts://host:8883."
            )
        tls = parts.scheme == "mqtts"
        user = unquote(parts.username) if parts.username else secret("QILU_MQTT_USER")
        password = unquote(parts.password) if parts.password else secret("QILU_MQTT_PASSWORD")
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, user, password)

    def client(self, client_id: str, will: PublishMessage | None = None) -> AsyncClient:
        """A client that is not connected yet. MQTT 5, because 3.1.1 cannot tell a refused message from an
        accepted one."""
        return AsyncClient(
            client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            keepalive=KEEPALIVE_S,
            username=self.user,
            password=self.password,
            will=will,
            maximum_packet_size=MAX_PACKET_BYTES,
            message_delivery="callback",
            connect_timeout=CONNECT_TIMEOUT_S,
        )

    async def connect(self, client: AsyncClient) -> None:
        """Raises MQTTError or OSError."""
        context = ssl.create_default_context() if self.tls else None
        await client.connect(self.host, self.port, ssl=context)
