"""Where the broker is and who we are to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.connection import Connection, Login, Will, connect
from qilu_common.mqtt.messages import Messages

KEEPALIVE_S = 30
RECEIVE_MAXIMUM = 100
"""Commands that the broker may hand over unacknowledged: they are acknowledged as they come."""


class Broker(BrokerAddress):
    """A broker's address, and the connections that equipment makes to it."""

    async def connect(
        self,
        client_id: str,
        *,
        will: Will | None = None,
        take: Callable[[Messages], None] = lambda _: None,
        acked: Callable[[list[Any]], None] = lambda _: None,
        moved: Callable[[], None] = lambda: None,
    ) -> Connection:
        """See `qilu_common.mqtt.connection.connect`."""
        login = Login(
            client_id,
            self.user,
            self.password,
            will,
            keepalive_s=KEEPALIVE_S,
            receive_maximum=RECEIVE_MAXIMUM,
        )
        return await connect(
            self.host, self.port, login, tls=self.tls_context(), take=take, acked=acked, moved=moved
        )
