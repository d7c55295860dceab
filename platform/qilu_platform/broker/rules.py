"""Mosquitto's rules from the registry, as files: the topics of each edge node and of each device with a
password (`nodes.acl`), revoked certificates (`crl.pem`), and the hashes of devices' passwords
(`devices.passwords`).

Mosquitto uses them as `acl_file`, `crlfile`, and part of `password_file`, and reads them again on SIGHUP,
which its supervisor sends when a file has changed. A node that lost its right loses its lines, so its open
connections are muted as well; a device that lost its password is disconnected. Rights of services do not
belong in `nodes.acl`: a reload takes them from a session that was restored from disk and is offline
(docs/decisions/054-rights-that-survive-a-reload.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import structlog
from qilu_common.private_files import write_private
from qilu_contract.wire.doors import DOORS
from sqlalchemy import Connection

from qilu_platform.broker.authority import Authority, Revoked
from qilu_platform.broker.certificates import Node, nodes, revocations, rules_version
from qilu_platform.broker.device_passwords import Login, logins
from qilu_platform.database.transactions import Database

log = structlog.get_logger()

MAX_LINES_FOR = 10_000
"""Maximum number of nodes with separate lines. For each line that it reads Mosquitto searches all users
before it: 10,000 nodes take it half a second of CPU, in which it does nothing else, ten times as many a
hundred times as long (docs/decisions/043-broker-rules.md)."""
SIGN_AGAIN = timedelta(days=1)
LOOK_AGAIN_S = 3600.0
"""Certificates end by themselves, without a change in the registry."""

_FOR_ALL = """\
# Too many edge nodes for separate lines: this limits each to its name, and the gateway checks its group.
pattern readwrite spBv1.0/+/+/%u/#
""" + "".join(f"pattern write {door.topic('+', '%u', '+')}\n" for door in DOORS)
_HOST = "pattern read spBv1.0/STATE/+\n"


def acl(found: Sequence[Node], devices: Sequence[Login] = ()) -> str:
    """The ACL: each node reads and writes the topics of its own name in its own group, and reads the host's
    STATE; each device writes its own topic."""
    own = "".join(
        f"user {device.user}\n" + "".join(f"topic write {topic}\n" for topic in device.topics)
        for device in devices
    )
    if len(found) > MAX_LINES_FOR:
        return _FOR_ALL + _HOST + own
    return (
        _HOST
        + own
        + "".join(
            f"user {node.enterprise}\n"
            f"topic readwrite spBv1.0/{node.county}/+/{node.enterprise}/#\n"
            + "".join(f"topic write {door.topic(node.county, node.enterprise, '+')}\n" for door in DOORS)
            for node in found
        )
    )


def passwords(devices: Sequence[Login]) -> str:
    """Lines of the broker's password file."""
    return "".join(f"{device.user}:{device.hash}\n" for device in devices)


def _wanted(connection: Connection) -> tuple[list[Node], list[Revoked], list[Login]]:
    """The content of all files: the last three arguments of `write_rules`."""
    return nodes(connection), revocations(connection), logins(connection)


def _texts(found: Sequence[Node], devices: Sequence[Login]) -> dict[str, str]:
    """The files that are not signed, by name."""
    return {"nodes.acl": acl(found, devices), "devices.passwords": passwords(devices)}


def write_rules(
    folder: Path,
    authority: Authority,
    found: Sequence[Node],
    revoked: Sequence[Revoked],
    devices: Sequence[Login] = (),
) -> bool:
    """Write the files, each atomically; returns whether anything was written. An unchanged file is not
    written, because the broker reads its rules again after every write: the list is signed again only when
    its entries changed or it is a day old."""
    folder.mkdir(parents=True, exist_ok=True)
    written = False
    if not authority.vouches_for(_content(folder / "crl.pem"), revoked, SIGN_AGAIN):
        _replace(folder / "crl.pem", authority.crl(revoked))
        written = True
    for name, text in _texts(found, devices).items():
        if not (folder / name).exists() or _content(folder / name) != text.encode():
            _replace(folder / name, text.encode())
            written = True
    return written


def _content(path: Path) -> bytes:
    """Empty when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _replace(path: Path, content: bytes) -> None:
    # A broker that runs as another user reads it where the folder lets others in.
    write_private(path, content, others=path.parent.stat().st_mode & 0o044)


class RevocationList:
    """The list as everybody may have it, signed when something changed and every minute at most."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._version, self._signed_s, self._pem = -1, float("-inf"), b""

    async def pem(self, database: Database) -> bytes:
        version, now_s = await database.read(rules_version), time.monotonic()
        if version != self._version or now_s - self._signed_s > 60:
            revoked = await database.read(revocations)
            self._pem = await database.compute(lambda: self._authority.crl(revoked))
            self._version, self._signed_s = version, now_s
        return self._pem


class ServedRules:
    """The same files for a broker on another machine, which `qilu gateway broker-rules` fetches. Kept in
    memory until the version changes."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._version, self._files = "", dict[str, str]()

    async def newer_than(self, known: str | None, database: Database) -> tuple[str, dict[str, str]] | None:
        """The version and the files; None when `known` is that version. All replicas give the same versions:
        a signature differs each time, what is signed does not."""
        # The hour is part of it, because certificates end by themselves and a list must not get old.
        version = f"{await database.read(rules_version)}-{int(time.time() // LOOK_AGAIN_S)}"
        if version == known:
            return None
        if version != self._version:
            found, revoked, devices = await database.read(_wanted)
            pem = await database.compute(lambda: self._authority.crl(revoked))
            self._version = version
            self._files = _texts(found, devices) | {"crl.pem": pem.decode()}
        return version, self._files


class BrokerRules:
    """Keeps the files in `folder` as the registry says. Any number of platforms may: they write the same."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self._folder = folder
        self._authority = authority
        self._version = -1
        self._looked_s = self._not_before_s = float("-inf")

    async def step(self, database: Database) -> None:
        """Called every second."""
        now_s = time.monotonic()
        version = await database.read(rules_version)
        if now_s < self._not_before_s or (version == self._version and now_s - self._looked_s < LOOK_AGAIN_S):
            return
        wanted = await database.read(_wanted)
        if await database.compute(lambda: write_rules(self._folder, self._authority, *wanted)):
            log.info(
                "broker rules written", nodes=len(wanted[0]), revoked=len(wanted[1]), devices=len(wanted[2])
            )
            # A broker that reads its rules does nothing else: it gets ten times as long for its work.
            self._not_before_s = now_s + (min(len(wanted[0]), MAX_LINES_FOR) + len(wanted[2])) / 1000
        self._version, self._looked_s = version, now_s
