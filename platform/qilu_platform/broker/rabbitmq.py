"""RabbitMQ: decides which certificates and which devices with a password may log in, with which client id and
on which topics, and closes the connections of those that may no longer.

A certificate's login name is its subject, `SERIALNUMBER=…,CN=…`, so a single certificate can be revoked. Its
client id is the DNS name in it, the enterprise's id; deploy/rabbitmq/log-in.conf lets RabbitMQ refuse others.
RabbitMQ asks about a certificate as about a client with the password "none". So the listener without
certificates has a separate virtual host, and a holder of another certificate is known by its client id. One
who holds a revoked certificate of the same enterprise does not know the code in the subject of a valid one.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import structlog
from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.doors import DOORS
from sqlalchemy import Connection, Select, select

from qilu_platform.broker import device_passwords
from qilu_platform.broker.authority import CODE_DIGITS, Authority
from qilu_platform.broker.certificates import rules_version
from qilu_platform.broker.device_passwords import Login
from qilu_platform.database.schema import certificates, enterprises
from qilu_platform.database.transactions import Database

log = structlog.get_logger()

MANAGER = "platform"
"""The user at RabbitMQ's management API; its password is the secret QILU_RABBITMQ_PASSWORD."""
CERTIFICATES, DEVICES = "/", "devices"
"""Virtual hosts: of the listener for certificates, and of that for devices with passwords."""
TIMEOUT_S = 3.0
LOOK_S = 60.0
"""Interval at which all connections are compared with the registry: certificates end by themselves."""
_SUBJECT = re.compile(rf"SERIALNUMBER=([0-9a-f]{{40}})([0-9a-f]{{{CODE_DIGITS}}}),CN=([^,]+)")
_SESSION = re.compile(r"mqtt-subscription-(.+)qos[01]")
_NAMESPACE = "spBv1___0"
"""How `spBv1.0` is written in a routing key."""


class Holder(NamedTuple):
    """The holder of a certificate that may log in now."""

    enterprise: str
    county: str


def login_name(authority: Authority, serial: str, enterprise: str) -> str:
    return f"SERIALNUMBER={serial}{authority.code(int(serial, 16))},CN={enterprise}"


_BARRED = certificates.c.revoked_ms.is_not(None) | enterprises.c.suspended_ms.is_not(None)


def _unexpired() -> Select[Any]:
    """Serial, enterprise, county and whether the certificate is barred."""
    return (
        select(certificates.c.id, enterprises.c.id, enterprises.c.county, _BARRED)
        .join(enterprises, certificates.c.enterprise == enterprises.c.id)
        .where(certificates.c.ends_ms > wall_ms())
    )


def holder(connection: Connection, authority: Authority, username: str) -> Holder | None:
    """None for a user name that is no certificate's, and for a certificate that may not log in."""
    subject = _SUBJECT.fullmatch(username)
    if subject is None or not hmac.compare_digest(authority.code(int(subject[1], 16)), subject[2]):
        return None
    row = connection.execute(_unexpired().where(certificates.c.id == subject[1])).one_or_none()
    if row is None or row[3] or row[1] != subject[3]:
        return None
    return Holder(row[1], row[2])


def barred(connection: Connection) -> set[tuple[str, str]]:
    """Serial and enterprise of revoked certificates, and of those of suspended enterprises, until they
    expire."""
    return {(row[0], row[1]) for row in connection.execute(_unexpired().where(_BARRED))}


def allowed(connection: Connection) -> set[tuple[str, str]]:
    """Serial and enterprise of the certificates that may log in now."""
    return {(row[0], row[1]) for row in connection.execute(_unexpired().where(~_BARRED))}


def devices(connection: Connection) -> dict[str, str]:
    """User names of the devices that may log in now, with the hashes of their passwords."""
    return {each.user: each.hash for each in device_passwords.logins(connection)}


def client_id(client: Holder | Login) -> str:
    """The only client id under which a client may connect."""
    return client.enterprise if isinstance(client, Holder) else client.user


def may_use(client: Holder | Login, resource: str, name: str) -> bool:
    """Whether a client may use an exchange or a queue: that of MQTT, and those of its own session."""
    if resource == "exchange":
        return name == "amq.topic"
    session = _SESSION.fullmatch(name)
    return resource == "queue" and session is not None and session[1] == client_id(client)


def may_speak(client: Holder | Login, permission: str, routing_key: str) -> bool:
    """Whether a client may publish on a topic (`write`) or subscribe to a filter (`read`). A certificate has
    the topics of its own edge node in its own group, and reads the host's STATE; a device publishes on its
    own topics."""
    if isinstance(client, Login):
        return permission == "write" and routing_key in {topic.replace("/", ".") for topic in client.topics}
    levels = routing_key.split(".")
    if levels[0] == _NAMESPACE:
        if levels[1:2] == ["STATE"]:
            return permission == "read" and len(levels) == 3 and levels[2] != "#"
        if len(levels) < 4 or levels[2] == "#":
            return False
        return (levels[1], levels[3]) == (client.county, client.enterprise)
    return permission == "write" and any(
        len(levels) == len(own) and all(mine in ("+", level) for mine, level in zip(own, levels, strict=True))
        for door in DOORS
        for own in [door.topic(client.county, client.enterprise, "+").split("/")]
    )


class Evictions:
    """Closes the connections of certificates and devices that may no longer log in. Any number of platforms
    may do so."""

    def __init__(self, addresses: Sequence[str], password: str | None, authority: Authority) -> None:
        """`addresses`: URLs of the management API, of one node or several; each of them knows all
        connections. Raises ConfigError."""
        if password is None:
            raise ConfigError(
                "QILU_PLATFORM_RABBITMQ needs QILU_RABBITMQ_PASSWORD, the password of the user "
                f"{MANAGER!r} at RabbitMQ's management API: with it the platform closes the connections of "
                "revoked certificates."
            )
        self._addresses, self._login = addresses, (MANAGER, password)
        self._authority = authority
        self._barred: set[tuple[str, str]] | None = None
        self._devices: dict[str, str] = {}
        self._again: set[str] = set()
        """Evicted in the round before. A log-in that was being decided then is evicted now."""
        self._version = -1
        self._looked_s = float("-inf")

    async def step(self, database: Database) -> None:
        """Called every second. Raises ConnectionError when no node answers; the next call tries again."""
        now_s = time.monotonic()
        version = await database.read(rules_version)
        look = now_s - self._looked_s >= LOOK_S
        if version == self._version and not look and not self._again:
            return
        out, devices_now = await database.read(lambda db: (barred(db), devices(db)))
        # The first round has nothing to compare with; it looks at all connections instead.
        new = set() if self._barred is None else out - self._barred
        gone = {login_name(self._authority, serial, enterprise) for serial, enterprise in new}
        gone |= {user for user, hash_ in self._devices.items() if devices_now.get(user) != hash_}
        async with httpx2.AsyncClient(auth=self._login, timeout=TIMEOUT_S, trust_env=False) as http:
            if look:
                valid = await database.read(allowed)
                gone |= {
                    name
                    for name in await self._connected(http)
                    if _is_ours(name) and name not in devices_now and not self._is_valid(name, valid)
                }
            for name in sorted(gone | self._again):
                await self._ask(http, "DELETE", f"/api/connections/username/{quote(name, safe='')}")
        if gone:
            log.info("connections closed", clients=len(gone))
        self._barred, self._devices, self._again, self._version = out, devices_now, gone, version
        if look:
            self._looked_s = now_s

    def _is_valid(self, user: str, certificates_: Collection[tuple[str, str]]) -> bool:
        """Whether this is the login name of one of these certificates."""
        subject = _SUBJECT.fullmatch(user)
        if subject is None or (subject[1], subject[3]) not in certificates_:
            return False
        return user == login_name(self._authority, subject[1], subject[3])

    async def _connected(self, http: httpx2.AsyncClient) -> set[str]:
        answer = await self._ask(http, "GET", "/api/connections?columns=user")
        return {row["user"] for row in answer.json() if "user" in row}

    async def _ask(self, http: httpx2.AsyncClient, method: str, path: str) -> httpx2.Response:
        failure = "no address is set"
        for address in self._addresses:
            try:
                answer = await http.request(method, address.rstrip("/") + path)
            except httpx2.HTTPError as error:
                failure = f"{address}: {error or type(error).__name__}"
                continue
            if answer.is_success or answer.status_code == 404:  # 404: it has no connection
                return answer
            failure = f"{address}: status {answer.status_code}"
        raise ConnectionError(f"RabbitMQ's management API does not answer: {failure}.")


def _is_ours(user: str) -> bool:
    """Whether a login name is one that the platform decides about, not one of RabbitMQ's own users."""
    return _SUBJECT.fullmatch(user) is not None or user.startswith(device_passwords.PREFIX)
