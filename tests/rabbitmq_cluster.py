"""A RabbitMQ 4 cluster on loopback, from Debian 13 beside the system (`rabbitmq_root.sh`), with the settings
files that the compose stack and the chart use. Nodes can be killed, started, and replaced by empty ones."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest

REPOSITORY = Path(__file__).parents[1]
SETTINGS = REPOSITORY / "deploy" / "rabbitmq"
PATIENCE_S = 180.0
USER, PASSWORD = "gateway", "secret"
_STARTED = """
mount --make-rprivate /
for shared in proc dev sys; do mount --rbind /$shared {root}/$shared; done
mount --bind {folder} {root}/srv
touch {root}/etc/hosts
mount --bind {folder}/hosts {root}/etc/hosts
exec chroot {root} env -i {environment} {command}
"""


def rabbitmq_root() -> Path:
    """The folder with Debian 13 and RabbitMQ 4; skips the test with a reason where it cannot be had."""
    made = subprocess.run(
        [REPOSITORY / "tests" / "rabbitmq_root.sh"], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip((made.stderr.strip().splitlines() or ["RabbitMQ 4 cannot be had"])[-1])
    return Path(made.stdout.strip())


class Node:
    """One node. `mqtt`, `management`: its ports on `host`."""

    def __init__(self, cluster: Cluster, number: int, host: str, ports: Callable[[], int]) -> None:
        self._cluster, self.host = cluster, host
        self.name = f"rabbit{number}@{cluster.names[number - 1]}"
        self.folder = cluster.folder / f"node{number}"
        self.amqp, self.distribution, self.mqtt, self.management = (ports() for _ in range(4))
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, more: str = "", *, plain: bool = True) -> None:
        """Write the file with its own addresses; `more`: further settings of the test. `plain`: with
        listeners that take a password, and a user."""
        listeners = (
            f"listeners.tcp.own = {self.host}:{self.amqp}\n"
            f"mqtt.listeners.tcp.own = {self.host}:{self.mqtt}\n"
            f"default_user = {USER}\ndefault_pass = {PASSWORD}\n"
        )
        peers = "".join(
            f"cluster_formation.classic_config.nodes.{place} = {node.name}\n"
            for place, node in enumerate(self._cluster.nodes, 1)
        )
        (self.folder / "conf.d").mkdir(parents=True, exist_ok=True)
        (self.folder / "conf.d" / "50-test.conf").write_text(
            f"{listeners if plain else ''}"
            f"management.tcp.ip = {self.host}\nmanagement.tcp.port = {self.management}\n"
            "cluster_formation.peer_discovery_backend = classic_config\n"
            f"{peers}"
            "loopback_users = none\nlog.console = true\nlog.console.level = info\nlog.file = false\n"
            f"{more}"
        )

    def start(self) -> None:
        """Start the process; `wait` waits until clients can connect."""
        assert self._process is None
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen(
                self._cluster.inside(self, "/usr/lib/rabbitmq/bin/rabbitmq-server"),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def login(self) -> tuple[str, str]:
        """At the management."""
        return self._cluster.login

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether its MQTT listener and its management take requests."""
        with contextlib.suppress(httpx.HTTPError):
            found = httpx.get(
                f"http://{self.host}:{self.management}/api/health/checks/port-listener/{self.mqtt}",
                auth=self.login,
                timeout=5.0,
                trust_env=False,
            )
            return found.status_code == 200
        return False

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.answers():
            log = (self.folder / "log").read_text(errors="replace")
            assert self.running, log[-3000:]
            assert time.monotonic() < deadline, log[-3000:]
            time.sleep(0.2)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def lose_disk(self) -> None:
        """Everything that the killed node ever wrote."""
        shutil.rmtree(self.folder / "mnesia", ignore_errors=True)

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        total = 0.0
        group = self._process.pid if self._process is not None else -1
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == group:
                    total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return total

    def ctl(self, *words: str, tool: str = "rabbitmqctl", check: bool = True) -> str:
        command = " ".join([f"/usr/lib/rabbitmq/bin/{tool}", "--node", self.name, *words])
        done = subprocess.run(
            self._cluster.inside(self, command),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout


class Cluster:
    """`nodes` RabbitMQ nodes, made in `folder`. `hosts`: an address of each, 127.0.0.1 unless given."""

    def __init__(
        self,
        root: Path,
        folder: Path,
        free_port: Callable[[], int],
        *,
        size: int = 3,
        hosts: Sequence[str] = (),
        names: Mapping[str, str] | None = None,
        enter: Callable[[Node], list[str]] = lambda _: [],
        login: tuple[str, str] = (USER, PASSWORD),
    ) -> None:
        """`names`: a host name of each node, with its address for the other nodes; `enter`: command that runs
        another one in a node's network; `login`: at the management."""
        self._root, self.folder, self._enter = root, folder, enter
        self.login = login
        self.names = list(names) if names else ["localhost"] * size
        self._epmd_port = free_port()
        hosts = hosts or ("127.0.0.1",) * size
        self.nodes = [Node(self, number, hosts[number - 1], free_port) for number in range(1, size + 1)]
        folder.mkdir(parents=True, exist_ok=True)
        more = "".join(f"{address} {name}\n" for name, address in (names or {}).items())
        (folder / "hosts").write_text(Path("/etc/hosts").read_text() + more)
        for name in ("rabbitmq.conf", "log-in.conf", "advanced.config", "enabled_plugins"):
            shutil.copy(SETTINGS / name, folder / name)
        cookie = folder / ".erlang.cookie"
        cookie.write_text("QILUTESTCOOKIE")
        cookie.chmod(0o400)

    @property
    def url(self) -> str:
        return f"mqtt://{USER}:{PASSWORD}@" + ",".join(f"{node.host}:{node.mqtt}" for node in self.nodes)

    def inside(self, node: Node, command: str) -> list[str]:
        """Run a command in the node's root, in a mount namespace that ends with it."""
        own = f"/srv/{node.folder.name}"
        environment = {
            "HOME": "/srv",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": node.name,
            "RABBITMQ_DIST_PORT": str(node.distribution),
            "RABBITMQ_MNESIA_BASE": f"{own}/mnesia",
            "RABBITMQ_LOG_BASE": f"{own}/mnesia/log",
            "RABBITMQ_CONFIG_FILE": "/srv/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{own}/conf.d/*.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": "/srv/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/srv/enabled_plugins",
            # Two schedulers that sleep when idle: three nodes share the machine with the rest of the test.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "'+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none'",
        }
        words = " ".join(f"{name}={value}" for name, value in environment.items())
        script = _STARTED.format(root=self._root, folder=self.folder, environment=words, command=command)
        return [*self._enter(node), "unshare", "--mount", "sh", "-ec", script]

    def start(self, more: str = "") -> None:
        """Start all nodes; returns when each takes clients and they are one cluster."""
        for node in self.nodes:
            node.configure(more)
            node.start()
        self.wait()

    def wait(self) -> None:
        """Until each node takes clients and they are one cluster."""
        for node in self.nodes:
            node.wait()
        deadline = time.monotonic() + PATIENCE_S
        while not all(self.running_nodes(node) == len(self.nodes) for node in self.nodes):
            assert time.monotonic() < deadline, "the nodes do not become one cluster"
            time.sleep(0.2)

    @staticmethod
    def running_nodes(node: Node) -> int:
        """Nodes that run, as one of them sees it; 0 while that one does not answer."""
        with contextlib.suppress(httpx.HTTPError):
            found = httpx.get(
                f"http://{node.host}:{node.management}/api/nodes",
                auth=node.login,
                timeout=10.0,
                trust_env=False,
            )
            return sum(each["running"] for each in found.json()) if found.status_code == 200 else 0
        return 0

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        # Erlang's port mapper makes itself a daemon; everything of ours has our port in its environment.
        mine = f"ERL_EPMD_PORT={self._epmd_port}".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mine in environment.read_bytes().split(b"\0"):
                    os.kill(int(environment.parent.name), signal.SIGKILL)


@contextlib.contextmanager
def cluster(folder: Path, free_port: Callable[[], int], more: str = "") -> Iterator[Cluster]:
    """Three nodes on loopback, started."""
    made = Cluster(rabbitmq_root(), folder, free_port)
    try:
        made.start(more)
        yield made
    finally:
        made.close()


class Wire:
    """A network namespace with two links to this machine: one for clients, one for the other nodes of a
    cluster. The second can be cut, while clients on both sides still reach their nodes."""

    CLIENTS, NODES = "10.213.0", "10.213.1"
    HERE, THERE = f"{NODES}.1", f"{NODES}.2"
    """Addresses at which the nodes reach one another."""

    def __init__(self) -> None:
        self._name = f"qilu{os.getpid()}"
        self.client_host = f"{self.CLIENTS}.2"
        """Address of the namespace for clients."""
        _run("ip", "netns", "add", self._name)
        try:
            self._inside("ip", "link", "set", "lo", "up")
            for letter, network in (("c", self.CLIENTS), ("n", self.NODES)):
                here, there = self._link(letter), f"qilu-{letter}"
                _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", self._name)
                _run("ip", "address", "add", f"{network}.1/24", "dev", here)
                _run("ip", "link", "set", here, "up")
                self._inside("ip", "address", "add", f"{network}.2/24", "dev", there)
                self._inside("ip", "link", "set", there, "up")
        except BaseException:
            self.close()
            raise

    def _link(self, letter: str) -> str:
        return f"q{letter}{os.getpid()}"

    @property
    def enter(self) -> list[str]:
        """Runs a command in the namespace."""
        return ["nsenter", f"--net=/run/netns/{self._name}"]

    def _inside(self, *words: str) -> None:
        _run(*self.enter, *words)

    def cut(self) -> None:
        _run("ip", "link", "set", self._link("n"), "down")

    def mend(self) -> None:
        _run("ip", "link", "set", self._link("n"), "up")

    def close(self) -> None:
        _run("ip", "netns", "delete", self._name)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


@contextlib.contextmanager
def divisible_cluster(folder: Path, free_port: Callable[[], int]) -> Iterator[tuple[Cluster, Wire]]:
    """Three nodes, started; the third one has the wire between itself and the others."""
    root, wire = rabbitmq_root(), Wire()
    try:
        made = Cluster(
            root,
            folder,
            free_port,
            hosts=("127.0.0.1", "127.0.0.1", wire.client_host),
            names={"qilu1": wire.HERE, "qilu2": wire.HERE, "qilu3": wire.THERE},
            enter=lambda node: wire.enter if node.host == wire.client_host else [],
        )
        try:
            made.start()
            yield made, wire
        finally:
            made.close()
    finally:
        wire.close()
