"""Migrates the schema with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from qilu_contract.errors import ConfigError
from sqlalchemy import (
    Connection,
)

from qilu_platform.database.locks import lock_start


def migrate(connection: Connection, revision: str = "head") -> None:
    """Bring the schema up to date, or up to a revision; of several platforms that start at once, one does it
    and the others wait."""
    lock_start(connection)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise ConfigError(
            f"The database was made by a newer version of this software ({error}): use that, or another --db."
        ) from error
