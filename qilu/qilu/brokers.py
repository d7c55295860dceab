"""The embedded stack's broker: Mosquitto where a recent one is installed, else one that comes with pip
(iotcore).

Mosquitto before 2.0.21 is refused: with a backlog it ignores how many unacknowledged messages its client
takes, so that a gateway which acknowledges late is disconnected over and over.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qilu_contract.errors import ConfigError

from qilu.children import die_with_parent, end
from qilu.keyring import MOSQUITTO_ACL, MQTT_USERS, Keyring, write_private

OLDEST_MOSQUITTO = (2, 0, 21)
BrokerKind = Literal["mosquitto", "builtin"]

# Mosquitto: what it takes to hand over everything (docs/decisions/003-brokers.md). One message a line:
# - inflight and queued: large and finite, since "no limit" makes a refused publish disconnect its client;
# - autosave_interval: seconds; what a kill of the broker may lose is what came since the last save.
_MOSQUITTO_CONF = """\
listener {port} 127.0.0.1
allow_anonymous false
password_file {home}/passwords
acl_file {home}/acl
per_listener_settings false
max_inflight_messages 65535
max_queued_messages 5000000
persistence true
persistence_location {home}/
autosave_interval 1
log_dest stderr
log_type error
log_type warning
"""

# For edge nodes, which prove who they are by a certificate. Its common name is user name and client id, so
# that nobody takes over another's session. CRL and rules are read anew on SIGHUP.
_MOSQUITTO_NODES = """\
listener {port} {host}
cafile {home}/ca.crt
certfile {home}/server.crt
keyfile {home}/server.key
crlfile {home}/crl.pem
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""
WATCH_S = 0.2

# rumqttd's log has bounded segments, and who falls behind them loses silently: 10 x 100 MiB is what lost
# nothing in a stall of 20 s at 20,000 messages/s (docs/decisions/003-brokers.md). MQTT 5 only: its protocol
# versions need a port each.
_RUMQTTD_TOML = """\
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "loopback"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 4194304
max_inflight_count = 1000
dynamic_filters = true
[v5.1.connections.auth]
{users}
"""


@dataclass(frozen=True, slots=True)
class Mosquitto:
    """An installed Mosquitto."""

    path: str
    version: tuple[int, ...]

    @property
    def recent(self) -> bool:
        return self.version >= OLDEST_MOSQUITTO

    def __str__(self) -> str:
        return f"Mosquitto {'.'.join(map(str, self.version))} at {self.path}"


TOO_OLD = (
    "is older than 2.0.21 and disconnects a gateway that has a backlog; "
    "install a newer one (Debian 12: from bookworm-backports)"
)


def find_mosquitto() -> Mosquitto | None:
    """The installed Mosquitto, whatever its version; None if there is none."""
    # Debian keeps it in /usr/sbin, which is not on everybody's path.
    path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        return None
    said = subprocess.run([path, "-h"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    found = re.search(r"mosquitto version (\d+)\.(\d+)\.(\d+)", said)
    return Mosquitto(path, tuple(map(int, found.groups()))) if found else None


def choose_broker(wanted: str) -> tuple[BrokerKind, str]:
    """What `--broker auto|mosquitto|builtin` means on this machine, and the reason in a few words.

    Raises ConfigError when Mosquitto is wanted and cannot be used.
    """
    found = find_mosquitto()
    if wanted == "builtin":
        return "builtin", "as wanted"
    if found is None:
        if wanted == "mosquitto":
            raise ConfigError(
                "--broker mosquitto: Mosquitto is not installed; install it or use --broker builtin."
            )
        return "builtin", "Mosquitto is not installed"
    if not found.recent:
        if wanted == "mosquitto":
            raise ConfigError(f"--broker mosquitto: {found} {TOO_OLD}, or use --broker builtin.")
        return "builtin", f"{found} {TOO_OLD}"
    return "mosquitto", str(found)


def free_port(preferred: int) -> int:
    """`preferred` if nothing listens there on loopback, else one that the system picks."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError("no free port on 127.0.0.1: close something that listens there.")


@dataclass(frozen=True, slots=True)
class NodeListener:
    """Where edge nodes come in by TLS. `server.crt`, `server.key` and `ca.crt` lie in the broker's home;
    `rules` holds `nodes.acl` and `crl.pem`, which the platform keeps up to date."""

    host: str
    port: int
    rules: Path

    def stamp(self) -> tuple[int, ...]:
        """Other numbers whenever the platform has written."""
        return tuple((self.rules / name).stat().st_mtime_ns for name in ("nodes.acl", "crl.pem"))


class EmbeddedBroker:
    """A broker on loopback as a child process, with passwords from the keyring; Mosquitto also listens to
    edge nodes. `async with` starts and ends it."""

    def __init__(
        self, kind: BrokerKind, port: int, home: Path, keyring: Keyring, log: Path, nodes: NodeListener | None
    ) -> None:
        self.kind = kind
        self.port = port
        self.nodes = nodes
        self._watching: asyncio.Task[None] | None = None
        self._taken: tuple[int, ...] = ()
        self._home = home
        self._keyring = keyring
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of its process, while it runs."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> EmbeddedBroker:
        """Returns when the broker answers; raises ConfigError when it does not within 10 s, with its own last
        words."""
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        command = self._prepare_mosquitto() if self.kind == "mosquitto" else self._prepare_builtin()
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours to pass on, in our order
                preexec_fn=die_with_parent,
            )
        async with asyncio.timeout(10):
            while not await _answers(self.port):
                if self._process.returncode is not None:
                    words = self._log.read_text(errors="replace").strip().splitlines()[-1:]
                    raise ConfigError(f"the broker ended at once: {' '.join(words) or 'it said nothing'}.")
                await asyncio.sleep(0.05)
        if self.nodes is not None:
            self._watching = asyncio.create_task(self._watch(self.nodes), name="broker rules")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._process is not None:
            await end(self._process, within_s=5)

    async def _watch(self, nodes: NodeListener) -> None:
        """Hand on what the platform writes."""
        while self._process is not None and self._process.returncode is None:
            with suppress(OSError):  # no new rules, no change: those that it has go on
                if nodes.stamp() != self._taken:
                    self._take_rules(nodes)
                    self._process.send_signal(signal.SIGHUP)
            await asyncio.sleep(WATCH_S)

    def _take_rules(self, nodes: NodeListener) -> None:
        # Copies of its own: Mosquitto wants rules that nobody else can read.
        self._taken = nodes.stamp()
        rules = MOSQUITTO_ACL + "\n" + (nodes.rules / "nodes.acl").read_text(encoding="utf-8")
        write_private(self._home / "acl", rules)
        write_private(self._home / "crl.pem", (nodes.rules / "crl.pem").read_text(encoding="utf-8"))

    def _prepare_mosquitto(self) -> list[str]:
        found = find_mosquitto()
        if found is None:  # choose_broker saw it a moment ago
            raise ConfigError("Mosquitto is not installed any more.")
        write_private(self._home / "passwords", self._keyring.mosquitto_passwords())
        write_private(self._home / "acl", MOSQUITTO_ACL)
        conf = _MOSQUITTO_CONF.format(port=self.port, home=self._home.resolve())
        if self.nodes is not None:
            self._take_rules(self.nodes)
            where = {"host": self.nodes.host, "port": self.nodes.port, "home": self._home.resolve()}
            conf += _MOSQUITTO_NODES.format(**where)
        if os.geteuid() == 0:  # else it would change to a user that cannot read these files
            conf += "user root\n"
        write_private(self._home / "mosquitto.conf", conf)
        return [found.path, "-c", str(self._home / "mosquitto.conf")]

    def _prepare_builtin(self) -> list[str]:
        users = "\n".join(f'{user} = "{self._keyring.password(user)}"' for user in MQTT_USERS)
        config = self._home / "rumqttd.toml"
        write_private(config, _RUMQTTD_TOML.format(port=self.port, users=users))
        # rumqttd logs each packet as an error: only what ends it is of interest.
        return [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
