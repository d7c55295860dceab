"""Errors of an MQTT connection."""

from __future__ import annotations

from qilu_contract.errors import QiluError

NOT_AUTHORISED = frozenset({0x86, 0x87})
"""Reason codes of a CONNACK: bad user name or password, not authorized."""
SESSION_TAKEN_OVER = 0x8E
NO_SUBSCRIBERS = 0x10
"""Reason code of a PUBACK: the broker accepted the message, and nobody has subscribed to it."""
FAILURE = 0x80
"""Reason codes from here on are failures."""


class MqttError(QiluError):
    """The connection has ended or cannot do what was asked. `reason` is the broker's reason code; 0 if it
    gave none."""

    def __init__(self, text: str, reason: int = 0) -> None:
        super().__init__(text)
        self.reason = reason


class ConnectRefused(MqttError):
    """The broker rejected the connection."""


class MessageRefused(MqttError):
    """The broker rejected a message, or has no subscriber for it."""
