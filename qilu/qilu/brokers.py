"""The broker of the embedded stack: Mosquitto if a recent version is installed, otherwise one from pip
(iotcore).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import structlog
from qilu_common.broker import MAX_PACKET_BYTES
from qilu_common.private_files import write_private
from qilu_contract.errors import ConfigError, QiluError

from qilu.children import die_with_parent, end, ended_by, last_words, size
from qilu.keyring import MQTT_USERS, Keyring
from qilu.mosquitto import Folders, configuration, find_mosquitto
from qilu.rights import dynamic_security

log = structlog.get_logger()

BrokerKind = Literal["mosquitto", "builtin"]

FILES_FOR_SERVICES = 100
"""Open files reserved for services and the broker itself, so that clients that fill the listener for edge
nodes, with or without a certificate, cannot lock out the gateway."""
WATCH_S = 0.2
_REFUSED = b"certificate verify failed"
"""In Mosquitto's log, once for each client whose certificate it refuses. The line names no client
(docs/decisions/131-refused-certificates-have-no-name.md)."""
MAX_LOG_READ = 1024 * 1024
"""Bytes of the log that a round of watching reads."""
_RULES, _PASSWORDS = ("nodes.acl", "crl.pem"), "devices.passwords"

START_S = STOP_S = 60.0
"""Timeouts: a broker that does not answer within the first fails to start; one that does not end within the
second is killed. Mosquitto reads its queue from disk and writes it there: half a million messages take one to
three seconds."""
MAX_RESTARTS, RESTART_WINDOW_S = 5, 600.0
"""Maximum number of restarts of a broker within the window; then the stack fails."""

# rumqttd's log has bounded segments, and who falls behind them loses silently: 10 x 100 MiB is what lost
# nothing in a stall of 20 s at 20,000 messages/s (docs/decisions/003-brokers.md). MQTT 5 only: its protocol
# versions need a port each.
RUMQTTD_TOML = f"""\
id = 0
[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "loopback"
listen = "127.0.0.1:{{port}}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = {MAX_PACKET_BYTES}
max_inflight_count = 1000
dynamic_filters = true
[v5.1.connections.auth]
{{users}}
"""


def choose_broker(wanted: str) -> tuple[BrokerKind, str]:
    """Choose a broker for `--broker auto|mosquitto|builtin`; also returns the reason in a few words. Raises
    ConfigError for other values, and when Mosquitto is requested and cannot be used.
    """
    if wanted not in ("auto", "mosquitto", "builtin"):
        raise ConfigError(f"--broker {wanted}: use auto, mosquitto, builtin or mqtt://host:1883.")
    found = find_mosquitto()
    if wanted == "builtin":
        return "builtin", "as wanted"
    if found is None:
        if wanted == "mosquitto":
            raise ConfigError(
                "--broker mosquitto: Mosquitto is not installed; install it or use --broker builtin."
            )
        return "builtin", "Mosquitto is not installed"
    if found.flaw:
        if wanted == "mosquitto":
            raise ConfigError(f"--broker mosquitto: {found} {found.flaw}, or use --broker builtin.")
        return "builtin", f"{found} {found.flaw}"
    return "mosquitto", str(found)


def free_port(preferred: int, chosen: Collection[int] = ()) -> int:
    """`preferred`, or the first of the 20 ports after it that is not among `chosen` and on which nothing
    listens on loopback, or else one that the system picks. Raises ConfigError where there is none."""
    near = range(preferred, min(preferred + 21, 65_536)) if preferred else ()
    for port in (*(port for port in near if port not in chosen), 0):
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
    """The TLS listener for edge nodes, and (`devices_port`) that for devices with a password. `server.crt`,
    `server.key` and `ca.crt` are in the broker's home; `rules` holds `nodes.acl`, `crl.pem` and
    `devices.passwords`, which the platform keeps up to date."""

    host: str
    port: int
    rules: Path
    devices_port: int | None = None

    def names(self) -> list[str]:
        """Names in the broker's certificate; the first one is given to edge nodes."""
        everywhere = self.host in ("0.0.0.0", "::")  # noqa: S104
        first = socket.gethostname() if everywhere else self.host
        return list(dict.fromkeys([first, "127.0.0.1", "::1", "localhost", socket.gethostname()]))

    def stamp(self) -> tuple[int, ...]:
        """Version of the rules; changes whenever the platform writes them."""
        changed = [(self.rules / name).stat().st_mtime_ns for name in _RULES]
        with suppress(FileNotFoundError):  # until the platform has written it for the first time
            changed.append((self.rules / _PASSWORDS).stat().st_mtime_ns)
        return tuple(changed)


@asynccontextmanager
async def sole_broker(home: Path) -> AsyncIterator[int]:
    """A lock for running a broker in `home`, as a file descriptor that the broker inherits: it is held while
    any process has it open. Waits for the broker of a killed stack, which still writes its queue to disk and
    holds the ports. Raises ConfigError when it does not end."""
    with await asyncio.to_thread(_lock_file, home) as file:
        deadline = time.monotonic() + STOP_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"The broker of an earlier stack still runs in {home}: end its process."
                    ) from error
                await asyncio.sleep(0.05)
            else:
                break
        yield file.fileno()


def _lock_file(home: Path) -> IO[str]:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    return (home / "lock").open("a")


class EmbeddedBroker:
    """A broker on loopback as a child process, with passwords from the keyring; Mosquitto also has a listener
    for edge nodes. `async with` starts and ends it; in between it is restarted if it ends by itself."""

    def __init__(
        self,
        kind: BrokerKind,
        port: int,
        home: Path,
        keyring: Keyring,
        log: Path,
        nodes: NodeListener | None,
        inherits: tuple[int, ...] = (),
    ) -> None:
        """The process `inherits` file descriptors."""
        self.kind = kind
        self.port = port
        self.nodes = nodes
        self._watching: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._taken: tuple[int, ...] = ()
        self._home = home
        self._keyring = keyring
        self._log = log
        self._inherits = inherits
        self._services = ""
        """Lines of the services in the broker's password file."""
        self.tell: Callable[[str], None] = lambda _: None
        """Called with a sentence for the user about a restart."""
        self.refused: Callable[[int], None] = lambda _: None
        """Called with the number of certificates that the broker has refused since the last call."""
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return None if self._process is None else self._process.pid

    async def __aenter__(self) -> EmbeddedBroker:
        """Returns when the broker answers; raises ConfigError when it does not within START_S, with its own
        last words."""
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._process = await self._start()
        self._keeping = asyncio.create_task(self._keep(self._process), name="broker")
        if self.nodes is not None:
            self._watching = asyncio.create_task(self._watch(self.nodes), name="broker rules")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self._watching, self._keeping):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._process is not None:
            await end(self._process, within_s=STOP_S)

    async def wait(self) -> None:
        """Wait until the broker has ended permanently; raises QiluError with the reason."""
        assert self._keeping is not None, "not started"
        await asyncio.shield(self._keeping)

    async def _start(self) -> asyncio.subprocess.Process:
        """Start a new process and wait until it answers. Raises ConfigError; then no process is left."""
        command = self._prepare_mosquitto() if self.kind == "mosquitto" else self._prepare_builtin()
        since = size(self._log)
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is ours to pass on, in our order
                preexec_fn=die_with_parent,
                pass_fds=self._inherits,
            )
        try:
            async with asyncio.timeout(START_S):
                while not await _answers(self.port):
                    if process.returncode is not None:
                        words = last_words(self._log, since) or ended_by(process.returncode)
                        raise ConfigError(f"The broker ended at once: {words.rstrip('.')}.")
                    await asyncio.sleep(0.05)
        except BaseException as error:
            await end(process, within_s=1)
            if not isinstance(error, TimeoutError):
                raise
            words = last_words(self._log, since).rstrip(".") or f"{self._log} is silent about the reason"
            raise ConfigError(
                f"The broker does not answer on 127.0.0.1:{self.port} after {START_S:.0f} s: {words}."
            ) from error
        return process

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        """Start the broker again whenever it ends by itself. Raises QiluError when it does so too often, or
        does not start."""
        ends: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        since = size(self._log)
        while True:
            why = ended_by(await process.wait())
            if words := last_words(self._log, since):
                why += f"; its last words: {words}"
            ends.append(time.monotonic())
            if len(ends) > MAX_RESTARTS and ends[-1] - ends[0] < RESTART_WINDOW_S:
                raise QiluError(
                    f"The broker ended {len(ends)} times within {RESTART_WINDOW_S / 60:.0f} minutes, now "
                    f"{why}: {self._log} has the rest."
                )
            log.warning("broker ended, starts again", why=why)
            self.tell(f"The broker ended ({why}) and is started again.")
            since = size(self._log)
            self._process = process = await self._start()

    async def _watch(self, nodes: NodeListener) -> None:
        """Apply the rules that the platform writes, and count the certificates that are refused."""
        read = size(self._log)
        while True:
            with suppress(OSError):  # on failure the existing rules stay in effect
                process = self._process
                # A broker that is starting reads them itself, and a signal would end it.
                if process is not None and process.returncode is None and nodes.stamp() != self._taken:
                    self._take_rules(nodes)
                    process.send_signal(signal.SIGHUP)
                read = self._count_refused(read)
            await asyncio.sleep(WATCH_S)

    def _count_refused(self, read: int) -> int:
        """Look at what the log has after `read` bytes; returns the new number of bytes."""
        if size(self._log) <= read:
            return min(read, size(self._log))  # a log that was emptied begins again
        with self._log.open("rb") as log:
            log.seek(read)
            lines = log.read(MAX_LOG_READ)
        if count := lines.count(_REFUSED):
            self.refused(count)
        return read + lines.rfind(b"\n") + 1

    def _take_rules(self, nodes: NodeListener) -> None:
        # Separate copies, because Mosquitto requires rules that only it can read.
        stamp = nodes.stamp()
        for name in _RULES:
            write_private(self._home / name, (nodes.rules / name).read_text(encoding="utf-8"))
        devices = ""
        with suppress(FileNotFoundError):
            devices = (nodes.rules / _PASSWORDS).read_text(encoding="utf-8")
        write_private(self._home / "passwords", self._services + devices)
        self._taken = stamp  # last, so that a copy that failed is made again

    def _prepare_mosquitto(self) -> list[str]:
        found = find_mosquitto()
        if found is None:  # choose_broker saw it a moment ago
            raise ConfigError("Mosquitto is not installed any more.")
        self._services = self._keyring.mosquitto_passwords()
        write_private(self._home / "passwords", self._services)
        write_private(self._home / "services.json", dynamic_security())
        home = str(self._home.resolve())
        nodes = devices = None
        if self.nodes is not None:
            self._take_rules(self.nodes)
            files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            most = 1_000_000 if files == resource.RLIM_INFINITY else max(2, files - FILES_FOR_SERVICES)
            if self.nodes.devices_port is not None:
                devices = (f"{self.nodes.devices_port} {self.nodes.host}", most // 4)
                most -= most // 4
            nodes = (f"{self.nodes.port} {self.nodes.host}", most)
        conf = configuration(
            Folders(home, home, home), f"{self.port} 127.0.0.1", str(found.plugin), nodes, devices
        )
        if os.geteuid() == 0:  # else it would change to a user that cannot read these files
            conf += "user root\n"
        write_private(self._home / "mosquitto.conf", conf)
        return [found.path, "-c", str(self._home / "mosquitto.conf")]

    def _prepare_builtin(self) -> list[str]:
        users = "\n".join(f'{user} = "{self._keyring.password(user)}"' for user in MQTT_USERS)
        config = self._home / "rumqttd.toml"
        write_private(config, RUMQTTD_TOML.format(port=self.port, users=users))
        # rumqttd logs each packet as an error: only what ends it is of interest.
        return [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
