"""Certificates and passwords of devices at a real RabbitMQ 4, with the settings files that compose uses: the
platform decides about each log-in, client id and topic, and a revocation closes connections. Run by
`make test-cluster`."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from qilu.rabbitmq import definitions
from qilu_platform.broker.authority import Authority, certificate_pem, key_pem, make_key
from qilu_platform.broker.bundle import new_key
from rabbitmq_cluster import PATIENCE_S, Cluster, Node, rabbitmq_root
from served_platform import served_platform

pytestmark = pytest.mark.skipif(
    os.environ.get("QILU_CLUSTER") != "1", reason="needs RabbitMQ 4: make test-cluster"
)
KEY, PASSWORD = "the-key-of-this-test", "the-password-of-the-management"
COUNTY, OWNER, OTHER = "370202", "370202-owner", "370202-other"
OUT_S = 2.0
"""A revoked certificate is out within this time."""


class Certificate(NamedTuple):
    """`id`: its serial number; `user`: its name at RabbitMQ."""

    id: str
    user: str
    files: tuple[str, str]


class World:
    """A platform, and RabbitMQ nodes that ask it."""

    def __init__(
        self, folder: Path, nodes: Sequence[Node], api: httpx.Client, passwords: Sequence[int]
    ) -> None:
        """`passwords`: each node's listener for devices with passwords."""
        self._folder, self._node, self.nodes, self.api = folder, nodes[0], nodes, api
        self.passwords = passwords
        self._clients: list[Client] = []

    def certificate(self, enterprise: str) -> Certificate:
        key, csr = new_key()
        answer = self.api.post(f"/v1/enterprises/{enterprise}/certificates", json={"csr": csr})
        answer.raise_for_status()
        made = answer.json()
        return self._kept(made["id"], key, made["certificate"].encode(), enterprise)

    def service(self, name: str) -> Certificate:
        key = make_key()
        made = Authority.open(self._folder / "ca").sign_service(key.public_key(), name)
        return self._kept(name, key_pem(key), certificate_pem(made), name)

    def _kept(self, id_: str, key: bytes, certificate: bytes, name: str) -> Certificate:
        files = self._folder / f"{id_}.crt", self._folder / f"{id_}.key"
        for file, content in zip(files, (certificate, key), strict=True):
            file.write_bytes(content)
        (number, *_) = x509.load_pem_x509_certificate(certificate).subject.get_attributes_for_oid(
            NameOID.SERIAL_NUMBER
        ) or [None]
        user = f"CN={name}" if number is None else f"SERIALNUMBER={number.value!s},CN={name}"
        return Certificate(id_, user, (str(files[0]), str(files[1])))

    def device(self, unit: str) -> tuple[str, str]:
        """A new password of a unit, with its user name."""
        made = self.api.post(f"/v1/units/{unit}/password").raise_for_status().json()
        return made["username"], made["password"]

    def with_password(self, login: tuple[str, str], client_id: str | None = None, place: int = 0) -> Client:
        """`place`: the node's."""
        own, host = login[0] if client_id is None else client_id, self.nodes[place].host
        self._clients.append(Client(host, self.passwords[place], None, None, own, login))
        return self._clients[-1]

    def client(
        self,
        certificate: Certificate | None,
        client_id: str,
        *,
        login: tuple[str, str] | None = None,
        node: Node | None = None,
    ) -> Client:
        """`node`: the first unless given."""
        ca, node = str(self._folder / "ca" / "ca.crt"), node or self._node
        self._clients.append(Client(node.host, node.mqtt, ca, certificate, client_id, login))
        return self._clients[-1]

    def wait_for_copies(self, count: int) -> None:
        """Wait until the queue between the virtual hosts is on so many nodes: it begins on one."""
        url = f"http://{self._node.host}:{self._node.management}/api/queues/devices/to-services"
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = httpx.get(url, auth=self._node.login, timeout=10, trust_env=False).json()
            if len(found.get("members", [])) == count:
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.5)

    def close(self) -> None:
        for client in self._clients:
            client.close()


class Client:
    """A client that does not come back by itself. `connected`: whether it was let in."""

    def __init__(
        self,
        host: str,
        port: int,
        ca: str | None,
        certificate: Certificate | None,
        client_id: str,
        login: tuple[str, str] | None = None,
    ) -> None:
        self._changed = threading.Condition()
        self._seen: list[tuple[str, Any]] = []
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, reconnect_on_failure=False
        )
        if login is not None:
            client.username_pw_set(*login)
        if ca is not None:
            client.tls_set(ca, *(certificate.files if certificate is not None else ()))
        client.on_connect = lambda *given: self._see("connected", not given[3].is_failure)
        client.on_disconnect = lambda *given: self._see("disconnected", True)
        client.on_publish = lambda *given: self._see("published", not given[3].is_failure)
        client.on_subscribe = lambda *given: self._see("subscribed", not given[3][0].is_failure)
        client.on_message = lambda *given: self._see("message", given[2].topic)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        try:
            client.connect(host, port, keepalive=10, properties=properties)
        except (ssl.SSLError, OSError):
            self._see("connected", False)
        client.loop_start()

    def _see(self, what: str, value: Any) -> None:
        with self._changed:
            self._seen.append((what, value))
            self._changed.notify_all()

    def _first(self, *wanted: str, after: int = 0) -> tuple[str, Any]:
        def found() -> tuple[str, Any] | None:
            return next((each for each in self._seen[after:] if each[0] in wanted), None)

        with self._changed:
            assert self._changed.wait_for(found, 30), (wanted, self._seen)
            result = found()
        assert result is not None
        return result

    @property
    def connected(self) -> bool:
        return self._first("connected", "disconnected") == ("connected", True)

    def publishes(self, topic: str) -> bool:
        """Whether the broker takes a message; a refusal ends the connection."""
        before = len(self._seen)
        self._client.publish(topic, b"x", 1)
        return self._first("published", "disconnected", after=before) == ("published", True)

    def subscribes(self, filter_: str) -> bool:
        before = len(self._seen)
        self._client.subscribe(filter_, 1)
        return self._first("subscribed", "disconnected", after=before) == ("subscribed", True)

    def message(self) -> str:
        """The topic of the first message."""
        return str(self._first("message")[1])

    def out_after_s(self) -> float:
        """Wait until it is disconnected."""
        began_s = time.monotonic()
        self._first("disconnected")
        return time.monotonic() - began_s

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[World]:
    with started(tmp_path_factory.mktemp("certificates"), free_port, size=1) as made:
        yield made


@contextlib.contextmanager
def started(folder: Path, free_port: Callable[[], int], size: int) -> Iterator[World]:
    rabbitmq = Cluster(
        rabbitmq_root(),
        folder / "rabbitmq",
        free_port,
        size=size,
        login=("platform", PASSWORD),
    )
    nodes, platform_port = rabbitmq.nodes, free_port()
    passwords = [free_port() for _ in nodes]
    Authority.open(folder / "ca").ensure_server(rabbitmq.folder, [nodes[0].host])
    (rabbitmq.folder / "definitions.json").write_text(definitions(PASSWORD, passwords))
    shared = (rabbitmq.folder / "log-in.conf").read_text().replace("/run/qilu/rabbitmq/", "/srv/")
    paths = "".join(
        f"auth_http.{name}_path = http://127.0.0.1:{platform_port}/v1/rabbitmq/{name}\n"
        for name in ("user", "vhost", "resource", "topic")
    )
    options = ["--db", f"sqlite:///{folder}/platform.db", "--store", f"duckdb:///{folder}/readings.duckdb"]
    environment = {
        "QILU_API_KEY": KEY,
        "QILU_PLATFORM_CA": str(folder / "ca"),
        "QILU_PLATFORM_BROKER_FOR_DEVICES": f"{nodes[0].host}:{passwords[0]}",
        "QILU_PLATFORM_RABBITMQ": json.dumps(
            ["http://127.0.0.1:1", *(f"http://{node.host}:{node.management}" for node in nodes)]
        ),
        "QILU_RABBITMQ_PASSWORD": PASSWORD,
    }
    try:
        for node, port in zip(nodes, passwords, strict=True):
            own = shared.replace(" 8883", f" {node.host}:{node.mqtt}")
            node.configure(own.replace(" 1884", f" {node.host}:{port}") + paths, plain=False)
            node.start()
        with served_platform(options, folder, platform_port, environment) as (url, _):
            headers = {"Authorization": f"Bearer {KEY}"}
            with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as api:
                for id_ in (OWNER, OTHER):
                    body = {"id": id_, "name": "Works", "county": COUNTY, "industry": "C31"}
                    api.post("/v1/enterprises", json=body).raise_for_status()
                for unit in ("m1", "m2"):
                    body = {"id": unit, "enterprise": OWNER, "class": "motor"}
                    api.post("/v1/units", json=body).raise_for_status()
                rabbitmq.wait()
                made = World(folder, nodes, api, passwords)
                yield made
                made.close()
    finally:
        rabbitmq.close()


def test_a_certificate_has_the_topics_and_the_client_id_of_its_enterprise(world: World) -> None:
    own = world.certificate(OWNER)
    assert not world.client(own, "anything").connected
    assert not world.client(None, OWNER).connected
    client = world.client(own, OWNER)
    assert client.connected
    for topic in (
        f"spBv1.0/{COUNTY}/NBIRTH/{OWNER}",
        f"spBv1.0/{COUNTY}/DDATA/{OWNER}/m1",
        f"qilu/v1/{COUNTY}/{OWNER}/m1/telemetry",
    ):
        assert client.publishes(topic), topic
    for filter_ in (f"spBv1.0/{COUNTY}/NCMD/{OWNER}/#", "spBv1.0/STATE/+"):
        assert client.subscribes(filter_), filter_
    for topic in (
        f"spBv1.0/{COUNTY}/DDATA/{OTHER}/m1",
        f"spBv1.0/370203/DDATA/{OWNER}/m1",
        f"qilu/v1/{COUNTY}/{OTHER}/m1/telemetry",
        "spBv1.0/STATE/host",
        f"qilu/history/spBv1.0/{COUNTY}/DDATA/{OWNER}/m1",
    ):
        other = world.client(own, OWNER)
        assert other.connected
        assert not other.publishes(topic), topic
    for filter_ in ("#", "spBv1.0/#", f"spBv1.0/+/+/{OWNER}/#", f"spBv1.0/{COUNTY}/+/{OTHER}/#"):
        other = world.client(own, OWNER)
        assert other.connected
        assert not other.subscribes(filter_), filter_


def test_another_certificate_or_a_password_does_not_take_its_name(world: World) -> None:
    own, other = world.certificate(OWNER), world.certificate(OTHER)
    for client_id in (OWNER, OTHER):
        assert not world.client(other, client_id, login=(own.user, "none")).connected
        assert not world.client(other, client_id, login=("CN=gateway", "none")).connected
        assert not world.client(None, client_id, login=(own.user, "none")).connected
    assert not world.client(own, OWNER, login=("platform", PASSWORD)).connected
    assert world.client(other, OTHER).connected


def test_the_certificate_of_an_enterprise_called_like_a_service_is_not_the_services(world: World) -> None:
    made = Authority.open(world._folder / "ca")
    key, now = make_key(), datetime.now(UTC)
    certificate = made.sign_node(key.public_key(), "gateway", now, now + timedelta(days=1))
    kept = world._kept("forged", key_pem(key), certificate_pem(certificate), "gateway")
    assert not world.client(kept, "gateway").connected


def test_services_connect_under_any_client_id_with_their_own_rights(world: World) -> None:
    gateway, devices = world.service("gateway"), world.service("devices")
    hears = world.client(gateway, "qilu-gateway-a")
    assert hears.connected
    for filter_ in ("spBv1.0/#", "qilu/v1/#", "qilu/history/#", f"spBv1.0/{COUNTY}/#"):
        assert hears.subscribes(filter_), filter_
    speaks = world.client(devices, "qilu-devices-a")
    assert speaks.publishes(f"spBv1.0/{COUNTY}/DDATA/{OWNER}/m1")
    assert hears.message() == f"spBv1.0/{COUNTY}/DDATA/{OWNER}/m1"
    assert speaks.publishes(f"qilu/history/spBv1.0/{COUNTY}/DDATA/{OWNER}/m1")
    assert hears.publishes("spBv1.0/STATE/a")
    assert not speaks.publishes("spBv1.0/STATE/a")
    assert not world.client(devices, "qilu-devices-b").subscribes("spBv1.0/#")


def test_a_device_publishes_on_its_own_topic_and_the_services_hear_it(world: World) -> None:
    hears = world.client(world.service("gateway"), "qilu-gateway-b")
    assert hears.subscribes("qilu/v1/#")
    login, topic = world.device("m1"), f"qilu/v1/{COUNTY}/{OWNER}/m1/telemetry"
    client = world.with_password(login)
    assert client.connected
    assert client.publishes(topic)
    assert hears.message() == topic
    for other in (f"qilu/v1/{COUNTY}/{OWNER}/m2/telemetry", f"spBv1.0/{COUNTY}/NBIRTH/{OWNER}"):
        again = world.with_password(login)
        assert again.connected
        assert not again.publishes(other), other
    again = world.with_password(login)
    assert again.connected
    assert not again.subscribes("qilu/v1/#")


def test_the_listener_for_passwords_admits_no_certificates_name(world: World) -> None:
    own, (user, password) = world.certificate(OWNER), world.device("m2")
    assert not world.with_password((user, "another")).connected
    assert not world.with_password((user, password), "qilu-gateway-b").connected
    for name in (own.user, f"/:{own.user}", "CN=gateway", "/:CN=gateway"):
        assert not world.with_password((name, "none"), OWNER).connected, name
    assert not world.with_password(("platform", PASSWORD), "platform").connected
    assert not world.client(own, user, login=(user, password)).connected


def test_the_holder_of_a_revoked_certificate_does_not_take_its_replacements_name(world: World) -> None:
    old, new = world.certificate(OWNER), world.certificate(OWNER)
    world.api.post(f"/v1/certificates/{old.id}/revoke").raise_for_status()
    for name in (f"SERIALNUMBER={new.id},CN={OWNER}", f"SERIALNUMBER={new.id}{'0' * 24},CN={OWNER}"):
        assert not world.client(old, OWNER, login=(name, "none")).connected
    assert world.client(new, OWNER).connected


def test_a_device_whose_password_ends_is_out_within_two_seconds(world: World) -> None:
    first = world.with_password(world.device("m1"))
    assert first.connected
    login = world.device("m1")
    assert first.out_after_s() < OUT_S  # a new password ends the one before
    second = world.with_password(login)
    assert second.connected
    world.api.delete("/v1/units/m1/password").raise_for_status()
    assert second.out_after_s() < OUT_S
    assert not world.with_password(login).connected


def test_a_revoked_certificate_is_out_within_two_seconds_and_no_other(world: World) -> None:
    first, second = world.certificate(OWNER), world.certificate(OTHER)
    one, two = world.client(first, OWNER), world.client(second, OTHER)
    assert one.connected
    assert two.connected
    world.api.post(f"/v1/certificates/{first.id}/revoke").raise_for_status()
    assert one.out_after_s() < OUT_S
    assert not world.client(first, OWNER).connected
    renewed = world.certificate(OWNER)
    assert world.client(renewed, OWNER).connected
    assert two.publishes(f"spBv1.0/{COUNTY}/DDATA/{OTHER}/m1")


def test_a_revoked_certificate_is_out_within_two_seconds_on_every_node_of_three(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The last time with the first node killed, which the platform has asked until then."""
    with started(tmp_path, free_port, size=3) as world:
        first, second, third = world.nodes
        other = world.certificate(OTHER)
        stays = world.client(other, OTHER, node=second)
        assert stays.connected
        for kills, node in ((False, first), (False, second), (False, third), (True, third)):
            if kills:
                world.wait_for_copies(3)
                first.kill()
            own = world.certificate(OWNER)
            client = world.client(own, OWNER, node=node)
            assert client.connected
            assert client.publishes(f"spBv1.0/{COUNTY}/DDATA/{OWNER}/m1")
            world.api.post(f"/v1/certificates/{own.id}/revoke").raise_for_status()
            assert client.out_after_s() < OUT_S
            assert not world.client(own, OWNER, node=node).connected
        assert stays.publishes(f"spBv1.0/{COUNTY}/DDATA/{OTHER}/m1")
        hears = world.client(world.service("gateway"), "qilu-gateway-c", node=second)
        assert hears.subscribes("qilu/v1/#")
        device = world.with_password(world.device("m1"), place=2)
        topic = f"qilu/v1/{COUNTY}/{OWNER}/m1/telemetry"
        assert device.connected
        assert device.publishes(topic)
        assert hears.message() == topic  # the shovel runs on a node that is left


def test_a_suspended_enterprise_is_out_until_it_is_resumed(world: World) -> None:
    own = world.certificate(OTHER)
    client = world.client(own, OTHER)
    assert client.connected
    world.api.post(f"/v1/enterprises/{OTHER}/suspend").raise_for_status()
    assert client.out_after_s() < OUT_S
    assert not world.client(own, OTHER).connected
    world.api.post(f"/v1/enterprises/{OTHER}/resume").raise_for_status()
    deadline = time.monotonic() + PATIENCE_S
    while not world.client(own, OTHER).connected:
        assert time.monotonic() < deadline
