"""Permissions of each service at Mosquitto, as the configuration of its dynamic security plugin.

The plugin looks a user up at each message. Rights in an `acl_file` belong to a session instead, and a reload
(SIGHUP) takes them from one that was restored from disk and is not connected again: what comes for the
gateway from then on is acknowledged and dropped (docs/decisions/054-rights-that-survive-a-reload.md). Rules
for edge nodes change all the time and stay in the `acl_file`: the plugin leaves to it what it does not allow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from qilu_contract.wire import topics
from qilu_contract.wire.doors import DOORS


class Rights(NamedTuple):
    """Topic filters."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


_DOORS = tuple(f"{door.root}/#" for door in DOORS)

RIGHTS = {
    "gateway": Rights(
        reads=("spBv1.0/#", *_DOORS, "qilu/history/#"),
        writes=("spBv1.0/STATE/+", "spBv1.0/+/NCMD/+", "spBv1.0/+/DCMD/+/+"),
    ),
    "devices": Rights(
        reads=("spBv1.0/STATE/+", "spBv1.0/+/NCMD/+", "spBv1.0/+/DCMD/+/+"),
        writes=(
            "spBv1.0/+/NBIRTH/+",
            "spBv1.0/+/NDEATH/+",
            "spBv1.0/+/NDATA/+",
            "spBv1.0/+/DBIRTH/+/+",
            "spBv1.0/+/DDEATH/+/+",
            "spBv1.0/+/DDATA/+/+",
            "qilu/history/spBv1.0/#",
            topics.CLOCK,
            *(door.topic("+", "+", "+") for door in DOORS),
        ),
    ),
    "platform": Rights(reads=("spBv1.0/+/NDATA/+",), writes=("spBv1.0/+/DCMD/+/+",)),
    "operator": Rights(
        reads=("spBv1.0/#", *_DOORS, "qilu/history/#"),
        writes=("spBv1.0/#", *_DOORS, "qilu/history/#"),
    ),
}
"""Least rights: each user reads and writes what its work needs."""


def dynamic_security() -> str:
    """The plugin's configuration, as JSON: a role for each user. Passwords are elsewhere (`Keyring`), and
    nobody may change this while the broker runs."""
    content = {
        # A subscription is granted to everybody and yields what its user may read, as with an acl_file.
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": True,
            "unsubscribe": True,
        },
        "roles": [
            {
                "rolename": user,
                "acls": [
                    *(_allow("publishClientReceive", topic) for topic in rights.reads),
                    *(_allow("publishClientSend", topic) for topic in rights.writes),
                ],
            }
            for user, rights in RIGHTS.items()
        ],
        "clients": [{"username": user, "roles": [{"rolename": user}]} for user in RIGHTS],
    }
    return msgspec.json.format(msgspec.json.encode(content)).decode()


def _allow(kind: str, topic: str) -> dict[str, Any]:
    return {"acltype": kind, "topic": topic, "allow": True}
