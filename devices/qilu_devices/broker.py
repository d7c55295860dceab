"""Where the broker is and who we are to it."""

from __future__ import annotations

from mqttium import MQTTProtocolVersion
from mqttium.api import AsyncClient, PublishMessage
from qilu_contract.broker import BrokerAddress

CONNECT_TIMEOUT_S = 20.0
KEEPALIVE_S = 30
MAX_PACKET_BYTES = 64 * 1024
"""Nothing that is sent to us is meant to be larger than a command."""


class Broker(BrokerAddress):
    """A broker's address, and the connections that equipment makes to it."""

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
        await client.connect(self.host, self.port, ssl=self.tls_context())
