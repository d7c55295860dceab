"""RabbitMQ's own users: our services, by certificate, and the platform's log-in to its management API."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from qilu_platform.broker.rabbitmq import MANAGER

from qilu.rights import RIGHTS

_SHA256 = "rabbit_password_hashing_sha256"


def definitions(password: str) -> str:
    """The file `definitions.json`, which RabbitMQ loads when it starts. `password`: that of the platform at
    the management API; services have no password."""
    users = [_user(_login(service), "", []) for service in RIGHTS]
    manager = _user(MANAGER, _hash(password), ["administrator"])  # without a right to send or hear messages
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    content = {
        "vhosts": [{"name": "/"}],
        "users": [*users, manager],
        "permissions": [{"user": user["name"], "vhost": "/", **everything} for user in users],
        "topic_permissions": [
            {
                "user": _login(service),
                "vhost": "/",
                "exchange": "amq.topic",
                "write": _pattern(rights.writes),
                "read": _pattern(rights.reads, filters=True),
            }
            for service, rights in RIGHTS.items()
        ],
    }
    return msgspec.json.format(msgspec.json.encode(content)).decode()


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
