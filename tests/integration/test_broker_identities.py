"""Permissions at a real Mosquitto with TLS, set up as in the compose stack (compose/): rules from
the platform's registry, certificates from its authority."""

from __future__ import annotations

import io
import os
import queue
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import paho_clients
import pytest
from compose_broker import ComposeBroker
from cryptography import x509
from gateway_world import eventually
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from qilu_common.broker import MAX_PACKET_BYTES, MAX_PAYLOAD_BYTES, BrokerAddress
from qilu_common.mqtt import connection as mqtt_connection
from qilu_common.mqtt.codec import ConnectOptions
from qilu_contract.errors import ConfigError
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_platform.broker.authority import Authority, certificate_pem, key_pem, make_key
from qilu_platform.client import Platform, PlatformError

QILU = Path(sys.executable).parent / "qilu"
A, B = "a-works", "370203-e00001"
GROUP = {A: "370202", B: "370203"}
PATIENCE_S = 60.0
NOT_AUTHORIZED = 135


def until(done: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class World:
    """A platform and a Mosquitto, as separate processes, in one folder."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        self.folder = folder
        self.broker = ComposeBroker(folder, free_port)
        self.port, self.tls_port, self._http_port = self.broker.port, self.broker.tls_port, free_port()
        self.keyring, self.rules = self.broker.keyring, self.broker.rules
        self._process: subprocess.Popen[bytes]
        self.platform: Platform

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http_port}"

    def start(self) -> None:
        self.broker.prepare()
        self._run_platform()
        self.broker.start()

    def _run_platform(self) -> None:
        environment = {
            "QILU_API_KEY_FILE": str(self.folder / "platform" / "admin.key"),
            "QILU_INGEST_KEY_FILE": str(self.folder / "platform" / "ingest.key"),
            "QILU_PLATFORM_CA": str(self.folder / "platform"),
            "QILU_PLATFORM_BROKER_RULES": str(self.rules),
            "QILU_PLATFORM_BROKER_FOR_NODES": f"127.0.0.1:{self.tls_port}",
            "QILU_PLATFORM_BROKER_FOR_DEVICES": f"127.0.0.1:{self.broker.devices_port}",
        }
        command = [str(QILU), "platform", "run", "--db", f"sqlite:///{self.folder}/registry.sqlite"]
        command += ["--port", str(self._http_port)]
        with (self.folder / "platform.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
        self.platform = Platform(self.url, self.keyring.key("admin"))

        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz", trust_env=False).status_code == 200
            except httpx.TransportError:
                return False

        until(ready, "the platform answers")

    def restart_platform(self) -> None:
        self._process.terminate()
        assert self._process.wait(PATIENCE_S) == 0
        self.platform.__exit__()
        self._run_platform()

    def restart_broker(self) -> None:
        assert self.broker.end() == 0
        self.broker.start()

    def stop(self) -> list[int]:
        self._process.terminate()
        return [self._process.wait(PATIENCE_S), self.broker.end()]

    def bundle(self, enterprise: str) -> Path:
        """A new key and certificate of it, unpacked."""
        folder = self.folder / f"bundle-{time.monotonic_ns()}"
        zipfile.ZipFile(io.BytesIO(self.platform.certificate_bundle(enterprise))).extractall(folder)
        return folder / enterprise

    def allowed(self, enterprise: str) -> bool:
        """The broker's rules contain the node."""
        return f"user {enterprise}\n" in (self.folder / "own" / "nodes.acl").read_text()

    def newest(self, enterprise: str) -> str:
        """The id of the certificate that was issued last."""
        return max(self.platform.certificates(enterprise), key=lambda each: each.issued_ms).id


class Client:
    """An MQTT 5 client that has nothing to do with ours: by certificate on the TLS listener, or by
    password."""

    def __init__(
        self,
        world: World,
        files: Path | None,
        *,
        login: str | None = None,
        password: str | None = None,
        tls: bool = False,
        id: str = "x",
        version: int = paho.MQTTv5,
        keep: bool = False,
    ) -> None:
        """`keep`: the broker keeps the session when the connection ends."""
        self.received: queue.Queue[str] = queue.Queue()
        self.disconnected = False
        self.largest: int | None = None
        """The largest packet that the broker says it takes."""
        self._reasons: queue.Queue[int] = queue.Queue()
        self._answers: queue.Queue[str] = queue.Queue()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=id, protocol=version)
        client = self._client
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = lambda *given: self._reasons.put(given[3].value)
        client.on_subscribe = lambda *_: self._answers.put("subscribed")
        client.on_message = lambda _client, _data, message: self.received.put(message.topic)
        client.reconnect_delay_set(1000, 1000)
        if login is not None:
            client.username_pw_set(login, password or world.keyring.password(login))
        tls = tls or files is not None
        if tls:
            own = [] if files is None else [str(files / "node.crt"), str(files / "node.key")]
            client.tls_set(str(world.folder / "mosquitto" / "ca.crt"), *own)
        more: dict[str, Any] = {}
        if version == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0xFFFF_FFFF if keep else 0
            more = {"clean_start": not keep, "properties": properties}
        try:
            port = world.broker.devices_port if password else world.tls_port if tls else world.port
            client.connect("127.0.0.1", port, **more)
        except OSError as error:
            self._answers.put(str(error))
        client.loop_start()
        self.connected = self._answers.get(timeout=PATIENCE_S) == "Success"

    def _on_connect(self, _client: object, _data: object, _flags: object, reason: object, said: Any) -> None:
        self.largest = getattr(said, "MaximumPacketSize", None)
        self._answers.put(str(reason))

    def _on_disconnect(self, *_: object) -> None:
        self.disconnected = True
        self._answers.put("disconnected")

    def publish(self, topic: str, payload: bytes = b"{}") -> int:
        """MQTT 5's reason for a message at QoS 1."""
        self._client.publish(topic, payload, 1)
        return self._reasons.get(timeout=PATIENCE_S)

    def is_acknowledged(self, topic: str, payload: bytes) -> bool:
        """Whether the broker acknowledges it, and does not disconnect us instead."""
        sent = self._client.publish(topic, payload, 1)
        until(lambda: sent.is_published() or self.disconnected, "an answer")
        return sent.is_published()

    def subscribe(self, *topics: str) -> None:
        self._client.subscribe([(topic, 1) for topic in topics])
        assert self._answers.get(timeout=PATIENCE_S) == "subscribed"

    def close(self) -> None:
        paho_clients.close(self._client)


@pytest.fixture(scope="module")
def world(
    mosquitto_program: str, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("world"), free_port)
    try:
        world.start()
        for enterprise, county in GROUP.items():
            world.platform.create_enterprise("Works", county, "C34", id=enterprise)
            world.platform.create_unit("motor", enterprise, id=f"motor-of-{enterprise}")
        yield world
    finally:
        codes = world.stop()
        if hasattr(world, "platform"):
            world.platform.__exit__()
    assert codes == [0, 0]


@pytest.fixture
def connect(world: World) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def make(files: Path | None = None, **more: Any) -> Client:
        made.append(Client(world, files, **more))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(scope="module")
def files(world: World) -> dict[str, Path]:
    """Certificates of both nodes that nobody revokes."""
    found = {enterprise: world.bundle(enterprise) for enterprise in (A, B)}
    until(lambda: world.allowed(A) and world.allowed(B), "the broker knows both")
    return found


def topics_of(node: str, group: str) -> list[str]:
    births = [f"spBv1.0/{group}/{kind}/{node}" for kind in ("NBIRTH", "NDATA", "NDEATH")]
    data = [f"spBv1.0/{group}/{kind}/{node}/motor-of-{node}" for kind in ("DBIRTH", "DDATA", "DDEATH")]
    return [*births, *data, f"qilu/v1/{group}/{node}/motor-of-{node}/telemetry"]


def test_a_node_publishes_under_its_own_name_in_its_own_group_only(
    files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    node = connect(files[A])
    assert node.connected
    for topic in topics_of(A, GROUP[A]):
        assert node.publish(topic) < 0x80, topic
    others = ["spBv1.0/STATE/qilu", "qilu/v1/clock", f"spBv1.0/{GROUP[B]}/NCMD/{B}", "$SYS/x", "x"]
    for topic in (*topics_of(B, GROUP[B]), *topics_of(A, GROUP[B]), *topics_of(B, GROUP[A]), *others):
        assert node.publish(topic) == NOT_AUTHORIZED, topic


def test_a_node_reads_its_own_topics_only(files: dict[str, Path], connect: Callable[..., Client]) -> None:
    mine, theirs, operator = connect(files[A]), connect(files[B]), connect(login="operator")
    mine.subscribe("#", "spBv1.0/#", f"spBv1.0/{GROUP[B]}/+/{B}/#", f"spBv1.0/+/DCMD/{B}/+", "qilu/v1/#")
    for topic in topics_of(B, GROUP[B]):
        assert theirs.publish(topic) < 0x80
    assert operator.publish(f"spBv1.0/{GROUP[B]}/NCMD/{B}") < 0x80
    own = [f"spBv1.0/{GROUP[A]}/NCMD/{A}", f"spBv1.0/{GROUP[A]}/DCMD/{A}/motor-of-{A}", "spBv1.0/STATE/qilu"]
    for topic in own:
        assert operator.publish(topic) < 0x80
    # Messages come in the order in which they were sent: what B sent would have come before the last of them.
    received: set[str] = set()
    while own[-1] not in received:
        received.add(mine.received.get(timeout=PATIENCE_S))
    assert received == set(own)


def signed(authority: Authority, folder: Path, name: str, begins: datetime, ends: datetime) -> Path:
    folder.mkdir()
    key = make_key()
    (folder / "node.key").write_bytes(key_pem(key))
    certificate = authority.sign_node(key.public_key(), name, begins, ends)
    (folder / "node.crt").write_bytes(certificate_pem(certificate))
    return folder


def test_who_has_no_valid_certificate_is_refused(
    world: World, files: dict[str, Path], connect: Callable[..., Client], tmp_path: Path
) -> None:
    ours, stranger = Authority.open(world.folder / "platform"), Authority.open(tmp_path / "stranger")
    now, day = datetime.now(UTC), timedelta(days=1)
    refused = {
        "no certificate": connect(None, tls=True),
        "a password instead": connect(None, tls=True, login="operator"),
        "another authority": connect(signed(stranger, tmp_path / "s", A, now - day, now + day)),
        "expired": connect(signed(ours, tmp_path / "e", A, now - 2 * day, now - day)),
        "not valid yet": connect(signed(ours, tmp_path / "f", A, now + day, now + 2 * day)),
        "a broker's certificate": connect(broker_files(world, tmp_path / "b")),
    }
    assert [why for why, client in refused.items() if client.connected] == []
    assert connect(signed(ours, tmp_path / "v", A, now - day, now + day)).connected
    # The password listener is for services: a node's name has no password there.
    with pytest.raises(FileNotFoundError):
        connect(login=A)


def broker_files(world: World, folder: Path) -> Path:
    folder.mkdir()
    for kind in ("crt", "key"):
        (folder / f"node.{kind}").write_bytes((world.folder / "mosquitto" / f"server.{kind}").read_bytes())
    return folder


def test_nobody_takes_over_the_session_of_another(
    files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    mine = connect(files[A], id=A)
    for name in (A, "qilu-gateway-qilu"):
        assert connect(files[B], id=name).connected
    assert mine.publish(topics_of(A, GROUP[A])[0]) < 0x80
    assert not mine.disconnected


def test_a_revoked_certificate_ends_for_old_and_new_connections(
    world: World, files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    world.platform.create_enterprise("Works", "370202", "C34", id="c-works")
    theirs = world.bundle("c-works")
    until(lambda: world.allowed("c-works"), "the broker knows it")
    node, topic = connect(theirs), topics_of("c-works", "370202")[0]
    assert node.publish(topic) < 0x80
    assert world.platform.revoke_certificate(world.newest("c-works")).state == "revoked"
    until(lambda: node.publish(topic) == NOT_AUTHORIZED, "its connection is mute")
    assert not connect(theirs).connected
    assert connect(files[A]).connected
    # Renewed: a new certificate has the old rights.
    again = world.bundle("c-works")
    until(lambda: world.allowed("c-works"), "the broker knows it again")
    renewed = connect(again)
    until(lambda: renewed.publish(topic) < 0x80, "it speaks again")


def test_a_suspended_enterprise_is_out_and_comes_back(
    world: World, files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    node, topic = connect(files[B]), topics_of(B, GROUP[B])[0]
    assert node.publish(topic) < 0x80
    world.platform.suspend_enterprise(B)
    until(lambda: node.publish(topic) == NOT_AUTHORIZED, "its connection is mute")
    assert not connect(files[B]).connected
    world.platform.resume_enterprise(B)
    until(lambda: node.publish(topic) < 0x80, "it speaks again")
    assert connect(files[B]).connected


def test_a_device_with_a_password_publishes_as_its_own_unit_until_that_is_revoked(
    world: World, files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    unit, own = "with-password", f"qilu/v1/{GROUP[A]}/{A}/with-password/telemetry"
    world.platform.create_unit("motor", A, id=unit)

    def issued() -> dict[str, Any]:
        made = world.platform.issue_device_password(unit)
        given = {"login": made.username, "password": made.password, "tls": True}
        until(lambda: connect(**given).connected, "the broker knows it")
        return given

    first = issued()
    device, operator = connect(**first), connect(login="operator")
    operator.subscribe("qilu/v1/#")
    assert device.publish(own) < 0x80
    assert operator.received.get(timeout=PATIENCE_S) == own
    for topic in (*topics_of(A, GROUP[A]), own.replace(A, B), f"{own}/more", "qilu/v1/clock", f"$SYS/{unit}"):
        assert device.publish(topic) == NOT_AUTHORIZED, topic
    device.subscribe("#")
    # Its client id is its user name: it takes over nobody's session, and has no second one.
    gateway = connect(login="gateway", id="qilu-gateway-qilu")
    assert connect(**first, id="qilu-gateway-qilu").connected
    assert not gateway.disconnected
    assert device.received.empty()

    second = issued()
    assert not connect(**first).connected
    device = connect(**second)
    assert device.publish(own) < 0x80
    world.platform.suspend_unit(unit)
    until(lambda: device.disconnected, "suspended, it is out")
    world.platform.resume_unit(unit)
    until(lambda: connect(**second).connected, "resumed, it is back")
    device = connect(**second)
    world.platform.revoke_device_password(unit)
    until(lambda: device.disconnected, "revoked, it is out")
    assert not connect(**second).connected
    # Nobody else noticed.
    assert connect(files[A]).publish(topics_of(A, GROUP[A])[0]) < 0x80
    assert gateway.disconnected is False


def test_the_example_that_comes_with_a_certificate_runs_as_it_is(
    world: World, files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    operator = connect(login="operator")
    operator.subscribe("qilu/v1/#")
    done = subprocess.run(["sh", files[A] / "publish.sh"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert operator.received.get(timeout=PATIENCE_S) == f"qilu/v1/{GROUP[A]}/{A}/motor-of-{A}/telemetry"
    # A topic that the broker refuses is an error: no unit's topic is below another unit's.
    refused = subprocess.run(
        ["sh", files[A] / "publish.sh", "motor/1"], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert refused.returncode == 1
    assert "Not authorized" in refused.stderr


def test_a_reload_takes_no_rights_from_a_session_that_came_back_with_the_broker(
    world: World, files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    session: dict[str, Any] = {"login": "gateway", "id": "qilu-gateway-away", "keep": True}
    gateway = connect(**session)
    gateway.subscribe("qilu/v1/#")
    gateway.close()
    world.restart_broker()
    world.platform.create_enterprise("Works", "370202", "C34", id="d-works")
    bundle = world.bundle("d-works")
    new, node = topics_of("d-works", "370202")[-1], topics_of(A, GROUP[A])[-1]
    until(lambda: connect(bundle).publish(new) == 0, "the broker has read its rules again")
    publisher = connect(files[A])
    assert [publisher.publish(node) for _ in range(50)] == [0] * 50
    gateway = connect(**session)
    assert [gateway.received.get(timeout=PATIENCE_S) for _ in range(51)] == [new, *[node] * 50]
    gateway.close()
    connect(login="gateway", id="qilu-gateway-away")  # ends the session


def test_rules_that_say_what_they_should_are_left_alone(world: World, files: dict[str, Path]) -> None:
    """Each write is a reload; a platform that starts is no reason for one."""
    rules = [world.rules / name for name in ("nodes.acl", "crl.pem")]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in rules]
    logged = (world.folder / "platform.log").read_text().count("broker rules written")
    world.restart_platform()
    world.platform.create_enterprise("Works", "370202", "C34", id="e-works")
    world.bundle("e-works")
    until(lambda: world.allowed("e-works"), "the platform looked at them")
    assert (world.folder / "platform.log").read_text().count("broker rules written") == logged + 1
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in rules][1:] == before[1:]


def revoked_in(crl: Path) -> Iterable[x509.RevokedCertificate]:
    return x509.load_pem_x509_crl(crl.read_bytes())


def test_a_broker_that_shares_no_disk_fetches_the_same_rules(world: World, tmp_path: Path) -> None:
    """`qilu gateway broker-rules`: the files that the platform writes for a broker on its own disk, then a
    revocation."""
    key = {"QILU_API_KEY": world.keyring.key("ingest")}
    command = [str(QILU), "gateway", "broker-rules", "--platform", world.url, "--to", str(tmp_path / "rules")]
    fetching = subprocess.Popen(command, env=os.environ | key)
    try:
        there = [tmp_path / "rules" / name for name in ("nodes.acl", "crl.pem")]
        until(lambda: all(path.exists() for path in there), "both files are fetched")
        assert there[0].read_text() == (world.rules / "nodes.acl").read_text()
        world.platform.create_enterprise("Works", "370202", "C34", id="rules-works")
        world.bundle("rules-works")
        until(lambda: "user rules-works\n" in there[0].read_text(), "the new node arrives")
        serial = int(world.newest("rules-works"), 16)
        world.platform.revoke_certificate(world.newest("rules-works"))
        until(
            lambda: serial in {each.serial_number for each in revoked_in(there[1])}, "the revocation arrives"
        )
        until(lambda: "rules-works" not in there[0].read_text(), "the node's topics go")
    finally:
        fetching.terminate()
        assert fetching.wait(timeout=PATIENCE_S) == 0


@pytest.mark.parametrize("version", [paho.MQTTv5, paho.MQTTv311])
def test_a_packet_beyond_the_bound_is_refused_and_not_acknowledged(
    world: World, files: dict[str, Path], connect: Callable[..., Client], version: Any
) -> None:
    node, topic = connect(files[A], version=version), topics_of(A, GROUP[A])[-1]
    assert node.largest == (MAX_PACKET_BYTES if version == paho.MQTTv5 else None)
    assert node.publish(topic, bytes(MAX_PAYLOAD_BYTES)) < 0x80
    assert not node.is_acknowledged(topic, bytes(MAX_PACKET_BYTES))
    assert node.disconnected


def test_services_have_no_more_rights_than_their_work_needs(
    world: World, connect: Callable[..., Client]
) -> None:
    may = {
        "gateway": ["spBv1.0/STATE/qilu", f"spBv1.0/370202/NCMD/{A}"],
        "devices": topics_of(A, "370202")[:6],
        "platform": [f"spBv1.0/370202/DCMD/{A}/u"],
    }
    may_not = {
        "gateway": [*topics_of(A, "370202"), "qilu/v1/clock"],
        "devices": ["spBv1.0/STATE/qilu", f"spBv1.0/370202/NCMD/{A}"],
        "platform": [*topics_of(A, "370202"), "spBv1.0/STATE/qilu"],
    }
    for name in may:
        service = connect(login=name)
        assert [topic for topic in may[name] if service.publish(topic) >= 0x80] == [], name
        assert [topic for topic in may_not[name] if service.publish(topic) < 0x80] == [], name


def test_our_own_clients_come_in_by_certificate_and_say_what_is_wrong(
    world: World, files: dict[str, Path], connect: Callable[..., Client]
) -> None:
    def publish(**environment: str) -> subprocess.CompletedProcess[str]:
        given = os.environ | environment | {
            "QILU_API_KEY_FILE": str(world.folder / "platform" / "admin.key"),
            "QILU_PLATFORM": world.url,
            "QILU_BROKER": f"mqtts://127.0.0.1:{world.tls_port}",
        }  # fmt: skip
        command = [str(QILU), "publish", f"motor-of-{A}", "power_in=11.2"]
        return subprocess.run(
            command, env=given, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    own = {
        "QILU_MQTT_CA_FILE": str(files[A] / "ca.crt"),
        "QILU_MQTT_CERTIFICATE_FILE": str(files[A] / "node.crt"),
        "QILU_MQTT_KEY_FILE": str(files[A] / "node.key"),
    }
    lost = publish(**own)  # acknowledged, and handed to nobody
    assert lost.returncode == 1
    assert "nobody subscribes" in lost.stderr.replace("\n", " ")
    connect(login="operator").subscribe("qilu/v1/#")
    done = publish(**own)
    assert done.returncode == 0, done.stderr
    wrong = publish(**own | {"QILU_MQTT_KEY_FILE": str(files[B] / "node.key")})
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "QILU_MQTT_CERTIFICATE_FILE" in wrong.stderr
    unknown = publish(**{name: own[name] for name in own if "CA_FILE" not in name})
    assert unknown.returncode == 1
    assert "certificate verify failed" in unknown.stderr.replace("\n", " ")


async def test_services_come_in_by_tls_and_the_gateway_refuses_a_suspended_enterprise_itself(
    world: World,
    files: dict[str, Path],
    connect: Callable[..., Client],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    authority = Authority.open(world.folder / "platform")
    own = signed(authority, tmp_path / "gateway", "gateway", now - day, now + day)
    monkeypatch.setenv("QILU_MQTT_CA_FILE", str(files[A] / "ca.crt"))
    monkeypatch.setenv("QILU_MQTT_CERTIFICATE_FILE", str(own / "node.crt"))
    monkeypatch.setenv("QILU_MQTT_KEY_FILE", str(own / "node.key"))
    settings = Settings(
        broker=f"mqtts://127.0.0.1:{world.tls_port}",
        store=f"duckdb:///{tmp_path}/store.duckdb",
        platform=world.url,
        state=tmp_path / "state",
        http_port=0,
    )
    operator = connect(login="operator")
    seconds = iter(range(1_700_000_000, 1_800_000_000))

    def send(enterprise: str) -> None:
        """By one whom the broker does not stop."""
        topic = topics_of(enterprise, GROUP[enterprise])[-1]
        operator.publish(topic, b'{"ts": %d, "power_in": 11.5}' % (1000 * next(seconds)))

    async with GatewayService(settings, api_key=world.keyring.key("ingest")) as gateway:
        await eventually(lambda: gateway.online, "online")
        send(A)
        send(B)
        await eventually(lambda: gateway.counters.stored == 2, "both stored")
        world.platform.suspend_enterprise(A)

        def refused() -> bool:
            send(A)
            return "unknown_unit" in gateway.dead_lettered_by_reason

        await eventually(refused, "refused")
        before = gateway.counters.stored
        send(B)
        await eventually(lambda: gateway.counters.stored == before + 1, "the other one continues")
        world.platform.resume_enterprise(A)

        def accepted() -> bool:
            send(A)
            return gateway.counters.stored > before + 1

        await eventually(accepted, "accepted again")
        # Equipment takes the same way in, under its own name.
        monkeypatch.setenv("QILU_MQTT_CERTIFICATE_FILE", str(files[A] / "node.crt"))
        monkeypatch.setenv("QILU_MQTT_KEY_FILE", str(files[A] / "node.key"))
        equipment = await mqtt_connection.connect(
            BrokerAddress.from_url(settings.broker), ConnectOptions("equipment")
        )
        assert equipment.is_open
        await equipment.disconnect()
    until(lambda: world.allowed(A), "the broker knows it again")


def test_the_client_says_what_the_platform_refused(world: World) -> None:
    with pytest.raises(PlatformError, match="does not exist") as refused:
        world.platform.unit("nothing")
    assert refused.value.status == 404
    with Platform(world.url, "no-such-key") as stranger, pytest.raises(ConfigError, match="not known"):
        stranger.unit("nothing")
    found = list(world.platform.units(enterprise=A))
    assert f"motor-of-{A}" in {unit.id for unit in found}
    assert {unit.enterprise for unit in found} == {A}
    assert world.platform.enterprise(A).county == GROUP[A]


def test_no_secret_stands_in_a_log_or_in_the_process_list(world: World, files: dict[str, Path]) -> None:
    keys = [path for path in (world.folder / "all").rglob("*") if path.is_file() and path.suffix != ".crt"]
    secrets = {line for path in [*keys, files[A] / "node.key"] for line in path.read_text().splitlines()}
    secrets = {line for line in secrets if len(line) > 20 and not line.startswith("-----")}
    assert len(secrets) > 10
    logs = [path.read_text() for path in world.folder.glob("*.log")]
    assert all(logs)
    running = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            running.append((path / "cmdline").read_text() + (path / "comm").read_text())
        except OSError:
            continue  # it has ended
    assert any(re.search(str(world.folder), line) for line in running)
    for text in (*logs, *running):
        assert [line for line in secrets if line in text] == []
