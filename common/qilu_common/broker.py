"""Broker address, credentials and limits."""

from __future__ import annotations

import functools
import os
import re
import ssl
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import unquote

from qilu_contract.errors import ConfigError

from qilu_common.addresses import BROKER_PORT, BROKER_TLS_PORT, is_loopback, split_hosts
from qilu_common.secrets import secret

SERVICE_USERS = ("gateway", "devices", "platform", "operator")
"""Users with a password; `operator` is the person at the machine, for hand-made devices."""
MAX_PAYLOAD_BYTES = 256 * 1024
"""The largest payload that a gateway decodes, unless it is configured otherwise."""
MAX_PACKET_BYTES = MAX_PAYLOAD_BYTES + 4096
"""The largest packet that our brokers take: that payload, its topic and some properties. A client that sends
more is disconnected instead of being thanked for what nobody will store."""
_SERVICE_PREFIX = "qilu-"
"""Prefix of services' client ids."""


def is_service(name: str) -> bool:
    """Whether a user name or client id is one of ours, which no edge node may have: with the name it would
    have the rights, with the client id it would take over the session."""
    return name in SERVICE_USERS or name.startswith(_SERVICE_PREFIX)


@functools.cache
def _context(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    # One for all connections of a process: each holds its own copy of the public authorities otherwise.
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one, too
        raise ConfigError(f"QILU_MQTT_CA_FILE: {ca} holds no certificates that can be read.") from error
    if certificate is None:
        if key is not None:
            raise ConfigError("QILU_MQTT_KEY_FILE is set without QILU_MQTT_CERTIFICATE_FILE: give both.")
        return context
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(
            f"QILU_MQTT_CERTIFICATE_FILE: {certificate} and its key {key or 'in the same file'} cannot be "
            f"used: {error.strerror or error}."
        ) from error
    return context


class Node(NamedTuple):
    """One address of a broker; a cluster has several."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    host: str
    port: int
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    others: tuple[Node, ...] = ()
    """Further nodes of the same cluster, with the same log-in."""

    def __str__(self) -> str:
        return ",".join(f"{node.host}:{node.port}" for node in self.nodes)

    @property
    def is_loopback(self) -> bool:
        """Whether all addresses are this machine's loopback."""
        return all(is_loopback(node.host) for node in self.nodes)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All addresses of the broker, in the order of the URL."""
        return Node(self.host, self.port), *self.others

    @classmethod
    def from_url(cls, url: str) -> Self:
        """From `mqtt://[user:password@]host[:port]` or `mqtts://…`; a cluster has a list of hosts,
        `mqtt://a,b:1884,c`. A log-in that the URL leaves out comes from the secrets QILU_MQTT_USER and
        QILU_MQTT_PASSWORD. Raises ConfigError when the URL names no broker, or when the files for TLS cannot
        be used."""
        try:
            first, *more = split_hosts(url)
            parts, port = first, first.port
            further = [(other.hostname, other.port) for other in more]
        except ValueError as error:
            raise ConfigError(f"--broker names no broker ({error}): use mqtt://host:1883.") from error
        if parts.scheme in ("ws", "wss"):
            raise ConfigError(
                f"--broker {parts.scheme}://{parts.hostname}: MQTT over WebSockets is not supported; use the "
                "broker's TCP listener, mqtt://host:1883 or mqtts://host:8883."
            )
        wrong = parts.path not in ("", "/") or not all(host for host, _ in further)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or wrong:
            shown = re.sub("//[^/@]*@", "//…@", url)  # without a log-in
            raise ConfigError(f"--broker {shown} names no broker: use mqtt://host:1883 or mqtts://host:8883.")
        tls = parts.scheme == "mqtts"
        user = unquote(parts.username) if parts.username else secret("QILU_MQTT_USER")
        password = unquote(parts.password) if parts.password else secret("QILU_MQTT_PASSWORD")
        usual = BROKER_TLS_PORT if tls else BROKER_PORT
        others = tuple(Node(host, port or usual) for host, port in further if host)
        address = cls(parts.hostname, port or usual, tls, user, password, others)
        address.tls_context()  # files that cannot be used end a start, not a connection later
        return address

    def login_refused(self) -> ConfigError:
        """Error for the user when the broker rejects the log-in."""
        return ConfigError(
            f"The broker {self} refuses user {self.user!r}: set QILU_MQTT_USER and QILU_MQTT_PASSWORD, or "
            "name them in the broker's URL."
        )

    def tls_context(self) -> ssl.SSLContext | None:
        """None for `mqtt://`. For `mqtts://` the broker must prove its name by QILU_MQTT_CA_FILE, or by the
        public authorities; QILU_MQTT_CERTIFICATE_FILE and QILU_MQTT_KEY_FILE prove ours. The files are read
        once a process. Raises ConfigError when they cannot be used."""
        if not self.tls:
            return None
        names = ("QILU_MQTT_CA_FILE", "QILU_MQTT_CERTIFICATE_FILE", "QILU_MQTT_KEY_FILE")
        return _context(*map(os.environ.get, names))
