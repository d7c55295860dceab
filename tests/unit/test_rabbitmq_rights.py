"""RabbitMQ's questions about topics and sessions; test_rabbitmq_certificates.py asks them by a real one."""

import json
import re

import pytest
from qilu.rabbitmq import definitions
from qilu_platform.broker.device_passwords import Login
from qilu_platform.broker.rabbitmq import Holder, may_speak, may_use

HOLDER = Holder("works", "370202")
DEVICE = Login("device.m1", "", ("qilu/v1/370202/works/m1/telemetry",))


@pytest.mark.parametrize(
    ("permission", "key", "allowed"),
    [
        ("write", "spBv1___0.370202.NBIRTH.works", True),
        ("write", "spBv1___0.370202.DDATA.works.m1", True),
        ("read", "spBv1___0.370202.*.works.#", True),
        ("read", "spBv1___0.STATE.*", True),
        ("write", "qilu.v1.370202.works.m1.telemetry", True),
        ("write", "spBv1___0.370202.NBIRTH.others", False),
        ("write", "spBv1___0.370203.NBIRTH.works", False),
        ("write", "spBv1___0.STATE.host", False),
        ("write", "spBv1___0", False),
        ("write", "", False),
        ("read", "spBv1___0.STATE.#", False),
        ("read", "spBv1___0.STATE.a.b", False),
        ("read", "spBv1___0.370202.#.works", False),  # matches the units called `works` of every node
        ("read", "spBv1___0.*.*.works.#", False),
        ("read", "qilu.v1.370202.works.m1.telemetry", False),
        ("write", "qilu.v1.370202.works.a.b.telemetry", False),
        ("write", "qilu.v1.370202.others.m1.telemetry", False),
        ("write", "qilu.history.spBv1.0.370202.DDATA.works.m1", False),
    ],
)
def test_a_certificate_has_the_topics_of_its_edge_node(permission: str, key: str, allowed: bool) -> None:
    assert may_speak(HOLDER, permission, key) == allowed


@pytest.mark.parametrize(
    ("resource", "name", "allowed"),
    [
        ("exchange", "amq.topic", True),
        ("queue", "mqtt-subscription-worksqos1", True),
        ("exchange", "amq.direct", False),
        ("queue", "mqtt-subscription-qilu-gateway-aqos1", False),
        ("queue", "works", False),
        ("vhost", "amq.topic", False),
    ],
)
def test_a_certificate_has_the_queues_of_its_session(resource: str, name: str, allowed: bool) -> None:
    assert may_use(HOLDER, resource, name) == allowed


@pytest.mark.parametrize(
    ("resource", "name", "allowed"),
    [
        ("exchange", "amq.topic", True),
        ("queue", "mqtt-subscription-device.m1qos1", True),
        ("queue", "mqtt-subscription-device.m2qos1", False),
        ("queue", "to-services", False),
    ],
)
def test_a_device_has_the_queues_of_its_session(resource: str, name: str, allowed: bool) -> None:
    assert may_use(DEVICE, resource, name) == allowed


def test_readings_of_devices_are_moved_and_nothing_is_moved_back() -> None:
    found = json.loads(definitions("secret", [1999]))
    assert found["global_parameters"][0]["value"] == {"1999": "devices"}
    assert [each["routing_key"] for each in found["bindings"]] == ["qilu.v1.#"]
    (shovel,) = found["parameters"]
    assert (shovel["vhost"], shovel["value"]["dest-uri"]) == ("devices", "amqp:///%2F")
    assert {each["vhost"] for each in found["permissions"]} == {"/"}  # no service listens beside it


def test_services_have_their_topics_and_no_password() -> None:
    found = json.loads(definitions("secret"))
    assert {user["name"] for user in found["users"] if not user["password_hash"]} == {
        "CN=gateway",
        "CN=devices",
        "CN=platform",
        "CN=operator",
    }
    rights = {each["user"]: each for each in found["topic_permissions"]}
    gateway, devices = rights["CN=gateway"], rights["CN=devices"]
    for key in ("spBv1___0.#", "qilu.v1.#", "qilu.v1.370202.#", "qilu.history.spBv1.0.370202.#"):
        assert re.search(gateway["read"], key), key
    assert re.search(devices["write"], "qilu.history.spBv1.0.370202.DDATA.e.u")
    assert re.search(devices["read"], "spBv1___0.370202.NCMD.e")
    assert not re.search(devices["read"], "spBv1___0.#")
    assert not re.search(devices["write"], "spBv1___0.STATE.host")
    assert not re.search(gateway["write"], "spBv1___0.370202.DDATA.e.u")
