"""RabbitMQ's own users: our services, by certificate, and the platform's log-in to its management API.

Devices with passwords have a separate virtual host. A shovel moves their messages to that of the services.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec
from qilu_common.addresses import RABBITMQ_DEVICES_PORT
from qilu_contract.wire.doors import DOORS
from qilu_platform.broker.rabbitmq import CERTIFICATES, DEVICES, MANAGER

from qilu.rights import RIGHTS

_SHA256 = "rabbit_password_hashing_sha256"


_QUEUE = "to-services"
"""Queue and shovel between the virtual hosts."""


def definitions(password: str, devices_ports: Iterable[int] = (RABBITMQ_DEVICES_PORT,)) -> str:
    """The file `definitions.json`, which RabbitMQ loads when it starts. `password`: that of the platform at
    the management API; services have no password. `devices_ports`: listeners for devices with
    passwords."""
    users = [_user(_login(service), "", []) for service in RIGHTS]
    manager = _user(MANAGER, _hash(password), ["administrator"])  # without a right to send or hear messages
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    hosts = {str(port): DEVICES for port in devices_ports}
    content = {
        "vhosts": [{"name": CERTIFICATES}, {"name": DEVICES}],
        "users": [*users, manager],
        "permissions": [{"user": user["name"], "vhost": CERTIFICATES, **everything} for user in users],
        "topic_permissions": [
            {
                "user": _login(service),
                "vhost": CERTIFICATES,
                "exchange": "amq.topic",
                "write": _pattern(rights.writes),
                "read": _pattern(rights.reads, filters=True),
            }
            for service, rights in RIGHTS.items()
        ],
        "global_parameters": [{"name": "mqtt_port_to_vhost_mapping", "value": hosts}],
        **_shovel(),
    }
    return msgspec.json.format(msgspec.json.encode(content)).decode()


def _shovel() -> dict[str, Any]:
    """Moves readings of devices to the virtual host of the services. A PUBACK means that the quorum queue has
    the message; it leaves it when the queues of the services have it."""
    return {
        "queues": [
            {
                "name": _QUEUE,
                "vhost": DEVICES,
                "durable": True,
                "auto_delete": False,
                # Not dropped at its 21st delivery, as rabbitmq.conf says of sessions.
                "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000},
            }
        ],
        "bindings": [
            {
                "source": "amq.topic",
                "vhost": DEVICES,
                "destination": _QUEUE,
                "destination_type": "queue",
                "routing_key": f"{door.root.replace('/', '.')}.#",
                "arguments": {},
            }
            for door in DOORS
        ],
        "parameters": [
            {
                "vhost": DEVICES,
                "component": "shovel",
                "name": _QUEUE,
                "value": {
                    "src-protocol": "amqp091",
                    "src-uri": f"amqp:///{quote(DEVICES, safe='')}",  # within the node, without a log-in
                    "src-queue": _QUEUE,
                    "src-prefetch-count": 1000,
                    "dest-protocol": "amqp091",
                    "dest-uri": f"amqp:///{quote(CERTIFICATES, safe='')}",
                    "dest-exchange": "amq.topic",
                    "ack-mode": "on-confirm",
                    "reconnect-delay": 1,
                },
            }
        ],
    }


def _login(service: str) -> str:
    """How RabbitMQ names the holder of a service's certificate."""
    return f"CN={service}"


def _user(name: str, password_hash: str, tags: list[str]) -> dict[str, Any]:
    return {"name": name, "password_hash": password_hash, "hashing_algorithm": _SHA256, "tags": tags}


def _hash(password: str) -> str:
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _pattern(filters_: Iterable[str], *, filters: bool = False) -> str:
    """A regular expression of routing keys that match MQTT's filters; of routing keys with wildcards where
    `filters`, because a subscription is checked as it is written."""
    level = "[^.]+" if filters else "[^.#*]+"
    found = []
    for each in filters_:
        key = re.escape(re.sub(r"^spBv1\.0", "spBv1___0", each).replace("/", "."))
        found.append(key.replace(r"\+", level).replace(r"\.\#", r"(\..*)?"))
    return f"^({'|'.join(found)})$"
