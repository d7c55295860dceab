"""Real servers for the tests: started on free ports in separate directories, ended by process id.

A server that is not installed skips the tests that ask for it; with CI=true it fails them. `tests/servers.sh`
installs what is missing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from qilu.brokers import RUMQTTD_TOML
from qilu_contract.store import Store
from qilu_stores import open_store

# How fast an example is drawn or runs depends on the machine: no test fails for that.
hypothesis_settings.register_profile("qilu", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("qilu")

MOSQUITTO_MIN = (2, 0, 21)  # older ones ignore Receive Maximum when a backlog is delivered
START_TIMEOUT_S = 60.0  # generous: the machine may be busy
STOP_TIMEOUT_S = 60.0
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _absent(what: str) -> None:
    """Skip the test, or fail it where everything has to be there."""
    sentence = f"{what} is not installed"
    if os.environ.get("CI") == "true":
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)


def _free_port() -> int:
    """A port on loopback that nobody listens on, below the range that outgoing connections are given."""
    for _ in range(1000):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on loopback")


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether a GET succeeds."""
    try:
        return httpx.get(url, timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False


class Server:
    """One server process on loopback: `stop` ends it cleanly, `kill` at once, `start` brings it back."""

    host = "127.0.0.1"

    def __init__(
        self, name: str, command: list[str], port: int, folder: Path, stop_signal: int = signal.SIGTERM
    ) -> None:
        self.name, self.port, self.folder = name, port, folder
        self._command = command
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def ready(self) -> bool:
        return _accepts(self.port)

    def start(self) -> None:
        """Returns when the server answers; nothing is done when it runs already."""
        if self.running:
            return
        log = self.folder / f"{self.name}.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.ready():
            if not self.running or time.monotonic() > deadline:
                self.kill()
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                raise RuntimeError(f"{self.name} did not start:\n{tail}")
            time.sleep(0.02)

    def stop(self) -> None:
        self._end(self._stop_signal)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Asks for a free port on loopback: `port = free_port()`."""
    return _free_port


@pytest.fixture(autouse=True)
def own_settings() -> Iterator[None]:
    """A command that runs in this process sets the umask to 077, where the log goes, and maybe QILU_CLASSES.
    The tests after it keep theirs: some build files for other users, read the log, or start processes."""
    umask, classes, log = os.umask(0o022), os.environ.get("QILU_CLASSES"), structlog.get_config()
    os.umask(umask)
    yield
    os.umask(umask)
    structlog.configure(**log)
    os.environ.pop("QILU_CLASSES", None)
    if classes is not None:
        os.environ["QILU_CLASSES"] = classes


@pytest.fixture(scope="session", autouse=True)
def _certificate_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Platforms on PostgreSQL would keep theirs in the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QILU_PLATFORM_CA", str(tmp_path_factory.mktemp("ca")))
        yield


class Mosquitto(Server):
    """A real Mosquitto, open to all, with persistence and the settings that lose nothing silently."""

    def __init__(self, program: str, folder: Path) -> None:
        port = _free_port()
        config = folder / "mosquitto.conf"
        config.write_text(
            "per_listener_settings false\n"
            f"user {pwd.getpwuid(os.geteuid()).pw_name}\n"
            f"listener {port} {self.host}\n"
            "allow_anonymous true\n"
            "max_inflight_messages 65535\n"
            "max_queued_messages 5000000\n"
            "persistence true\n"
            f"persistence_location {folder}/\n"
            "autosave_interval 1\n"
        )
        super().__init__("mosquitto", [program, "-c", str(config)], port, folder)

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"


@pytest.fixture(scope="session")
def mosquitto_program() -> str:
    program = shutil.which("mosquitto", path=SBIN)
    wanted = "mosquitto >= " + ".".join(map(str, MOSQUITTO_MIN))
    if program is None:
        _absent(wanted)
    assert program is not None
    text = subprocess.run([program, "-h"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"mosquitto version (\d+)\.(\d+)\.(\d+)", text)
    if found is None or tuple(map(int, found.groups())) < MOSQUITTO_MIN:
        _absent(wanted)
    return program


@pytest.fixture(scope="module")
def mosquitto(mosquitto_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """A fresh broker for each module of tests."""
    server = Mosquitto(mosquitto_program, tmp_path_factory.mktemp("mosquitto"))
    server.start()
    yield server
    server.kill()


class BuiltinBroker(Server):
    """The broker that comes with pip, as the embedded stack sets it up, but open to all. It forgets
    everything when it ends."""

    def __init__(self, folder: Path) -> None:
        port = _free_port()
        config = folder / "rumqttd.toml"
        config.write_text(RUMQTTD_TOML.format(port=port, users="").replace("[v5.1.connections.auth]", ""))
        command = [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]
        super().__init__("builtin-broker", command, port, folder)

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"


@pytest.fixture(params=["mosquitto", "builtin"])
def any_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """Each of the brokers that the embedded stack may have, in turn; each test gets a new built-in one."""
    if request.param == "mosquitto":
        server: Server = request.getfixturevalue("mosquitto")
        server.start()
        yield server
        return
    builtin = BuiltinBroker(tmp_path)
    builtin.start()
    yield builtin
    builtin.kill()


class InfluxServer(Server):
    """A real InfluxDB 1.x with the tsi1 index and no limit on series. `users`: it asks who one is; then the
    first to be made, by anybody, is an administrator."""

    def __init__(self, program: str, folder: Path, *, users: bool = False) -> None:
        port = _free_port()
        config = folder / "influxdb.conf"
        config.write_text(
            "reporting-disabled = true\n"
            f'bind-address = "{self.host}:{_free_port()}"\n'
            f'[meta]\ndir = "{folder}/meta"\n'
            f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\nindex-version = "tsi1"\n'
            "max-series-per-database = 0\nmax-values-per-tag = 0\nquery-log-enabled = false\n"
            "[monitor]\nstore-enabled = false\n"
            f'[http]\nbind-address = "{self.host}:{port}"\nlog-enabled = false\n'
            f"auth-enabled = {str(users).lower()}\n"
        )
        super().__init__("influxdb", [program, "-config", str(config)], port, folder)

    @property
    def http(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ready(self) -> bool:
        return answers(f"{self.http}/ping")


class Influx:
    """One test's own database on the session's server; the first write or `CREATE DATABASE` makes it."""

    def __init__(self, server: InfluxServer) -> None:
        self.server = server
        self.database = f"test_{secrets.token_hex(6)}"
        self.http = server.http
        self.url = f"influxdb://{server.host}:{server.port}/{self.database}"

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def kill(self) -> None:
        self.server.kill()


def _influxd() -> str:
    program = shutil.which("influxd", path=SBIN)
    if program is None:
        _absent("influxdb")
    assert program is not None
    return program


@pytest.fixture(scope="session")
def influxdb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    server = InfluxServer(_influxd(), tmp_path_factory.mktemp("influxdb"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def influxdb_with_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """A server that asks who one is. It has the administrator `root`, password `secret`."""
    server = InfluxServer(_influxd(), tmp_path_factory.mktemp("influxdb"), users=True)
    server.start()
    query = {"q": "CREATE USER root WITH PASSWORD 'secret' WITH ALL PRIVILEGES"}
    httpx.post(f"{server.http}/query", data=query, timeout=60.0, trust_env=False).raise_for_status()
    yield server
    server.kill()


@pytest.fixture
def influxdb(influxdb_server: InfluxServer) -> Iterator[Influx]:
    """A database that no other test sees; `stop`, `kill` and `start` are the whole server's."""
    influxdb_server.start()
    influx = Influx(influxdb_server)
    yield influx
    influxdb_server.start()
    query = {"q": f'DROP DATABASE "{influx.database}"'}
    httpx.post(f"{influx.http}/query", data=query, timeout=60.0, trust_env=False)


class Postgres(Server):
    """A real PostgreSQL, run as the user `postgres` where the tests run as root."""

    user = "qilu"

    def __init__(self, programs: Path, folder: Path) -> None:
        port = _free_port()
        self.password = secrets.token_hex(12)
        self._data = folder / "data"
        self._initdb = [*_as_postgres(), str(programs / "initdb"), "--pgdata", str(self._data)]
        command = [*_as_postgres(), str(programs / "postgres"), "-D", str(self._data)]
        # A machine that loses power takes the test with it, so nothing has to reach the platter.
        for setting in ("unix_socket_directories=", "fsync=off", "max_connections=200"):
            command += ["-c", setting]
        command += ["-h", self.host, "-p", str(port)]
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients to leave.
        super().__init__("postgres", command, port, folder, stop_signal=signal.SIGINT)

    def create(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        options = ["--username", self.user, "--pwfile", str(secret), "--auth", "scram-sha-256"]
        locale = ["--encoding", "UTF8", "--locale", "C", "--no-sync"]
        if os.geteuid() == 0:
            for path in (self.folder, secret):
                shutil.chown(path, "postgres", "postgres")
        subprocess.run([*self._initdb, *options, *locale], check=True, capture_output=True)

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def ready(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str) -> None:
        with contextlib.closing(psycopg.connect(self.url("postgres"), autocommit=True)) as connection:
            connection.execute(statement)


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The session's PostgreSQL; most tests want `postgres_url`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if not found:
        _absent("postgresql")
    # Not under pytest's folder, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="qilu-postgres-"))
    server = Postgres(found[-1].parent, folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """An empty database of the test's own."""
    postgres.start()
    database = f"test_{secrets.token_hex(6)}"
    postgres.execute(f'CREATE DATABASE "{database}"')
    yield postgres.url(database)
    postgres.start()
    postgres.execute(f'DROP DATABASE "{database}" WITH (FORCE)')


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium that runs headless."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    _absent("chromium")
    raise AssertionError("unreachable")


class SmallDisk:
    """A file system of some megabytes that can grow, be filled, and be made read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, megabytes: int) -> bool:
        options = f"size={megabytes}m"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def grow(self, megabytes: int) -> None:
        """Its new size; writable again if it was not."""
        self._remount(f"rw,size={megabytes}m")

    def make_read_only(self) -> None:
        """Only while no file on it is open for writing."""
        self._remount("ro")

    def fill(self) -> None:
        """Leave no byte free."""
        with contextlib.suppress(OSError), (self.folder / "filling").open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def clear(self) -> None:
        """Take away what fills it."""
        (self.folder / "filling").unlink()

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """One of 4 MB; skips the test where nothing can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    disk = SmallDisk(folder)
    if not disk.mount(4):
        pytest.skip("a small disk can only be mounted by root, outside of most containers")
    yield disk
    disk.unmount()


@pytest.fixture(params=["duckdb", "influxdb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An open, empty store of each kind."""
    if request.param == "duckdb":
        url = f"duckdb:///{tmp_path}/readings.duckdb"
    else:
        url = request.getfixturevalue("influxdb").url
    async with open_store(url) as opened:
        yield opened
