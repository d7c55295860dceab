"""Address of an InfluxDB, as users write it."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, unquote

from qilu_common.addresses import INFLUX_PORT, split_hosts


@dataclass(frozen=True, slots=True)
class InfluxAddress:
    """The parts of `influxdb://user:password@host:8086/database` (`influxdbs://` for TLS), or of
    `influxdb://a,b:8087,c/database` for servers that answer for one another."""

    url: str
    """Without the log-in: `http://host:8086`. Of a list, the first."""
    database: str
    user: str | None = None
    password: str | None = None
    others: tuple[str, ...] = ()
    """Addresses of the other servers."""

    @property
    def urls(self) -> tuple[str, ...]:
        return self.url, *self.others

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """None for any other URL."""
        try:
            each = split_hosts(url)
            urls = [_http(parts) for parts in each]
        except ValueError:
            return None
        known = each[0]
        database = known.path.strip("/")
        if known.scheme not in ("influxdb", "influxdbs") or not database:
            return None
        user, password = (
            None if text is None else unquote(text) for text in (known.username or None, known.password)
        )
        return cls(urls[0], database, user, password, tuple(urls[1:]))

    def log_in(self, token: str | None) -> tuple[str, str] | None:
        """User and password where the server has users (1.x): from the URL, whose password may also be the
        token, or from a token `user:password`."""
        if self.user is not None:
            return self.user, self.password or token or ""
        if token and ":" in token:  # tokens of 2.x and 3.x hold none
            user, _, password = token.partition(":")
            return user, password
        return None

    def headers(self, token: str | None) -> dict[str, str]:
        """The header that logs in, if anything does."""
        log_in = self.log_in(token)
        if log_in is not None:
            return {"Authorization": f"Basic {b64encode(':'.join(log_in).encode()).decode()}"}
        return {"Authorization": f"Token {token}"} if token else {}

    def caller(self, token: str | None) -> str:
        """The name of what logs in, for messages."""
        log_in = self.log_in(token)
        if log_in is not None:
            return f"the user {log_in[0]!r}"
        return "the token in QILU_INFLUX_TOKEN" if token else "a caller without credentials"


def _http(parts: SplitResult) -> str:
    """Raises ValueError for what is no host and port."""
    if not parts.hostname:
        raise ValueError("a host is missing")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{'https' if parts.scheme == 'influxdbs' else 'http'}://{host}:{parts.port or INFLUX_PORT}"


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    return re.sub(r"(?<=://)([^:/?#@]*):[^/?#]*(?=@)", r"\1:***", url, count=1)
