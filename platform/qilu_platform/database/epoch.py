"""The registry's epoch: another one whenever a platform starts. By it gateways notice that the registry may
have gone back, restored from a backup, and doubt what they were told before. A restored registry comes with
the epoch of its backup, but no registry is restored under a platform that runs.
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
