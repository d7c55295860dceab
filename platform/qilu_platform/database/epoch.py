"""The registry's epoch: a new one whenever a platform starts. It shows gateways that the registry may have
been restored from a backup, so that they discard earlier answers. A restored registry comes with the epoch of
its backup, but no registry is restored under a platform that runs.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, select

from qilu_platform.database.schema import epoch


def begin(connection: Connection) -> None:
    """A new epoch, the same for all replicas."""
    connection.execute(epoch.delete())
    connection.execute(epoch.insert().values(id=1, value=secrets.token_hex(8)))


def current(connection: Connection) -> str:
    return connection.scalar(select(epoch.c.value)) or ""
