"""Where the broker is, and who we are to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from qilu_contract.errors import ConfigError
from qilu_contract.secrets import secret


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def from_url(cls, url: str) -> Self:
        """From `mqtt://[user:password@]host[:port]` or `mqtts://…`; a log-in that the URL leaves out comes
        from the secrets QILU_MQTT_USER and QILU_MQTT_PASSWORD. Raises ConfigError when the URL names no
        broker."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"--broker {url}: {error}.") from error
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path not in ("", "/"):
            raise ConfigError(f"--broker {url} names no broker: use mqtt://host:1883 or mqtts://host:8883.")
        tls = parts.scheme == "mqtts"
        user = unquote(parts.username) if parts.username else secret("QILU_MQTT_USER")
        password = unquote(parts.password) if parts.password else secret("QILU_MQTT_PASSWORD")
        return cls(parts.hostname, port or (8883 if tls else 1883), tls, user, password)
