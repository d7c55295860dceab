"""Online backup of an embedded registry."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from qilu_contract.errors import ConfigError, QiluError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError


def back_up(db_url: str, copy: Path) -> None:
    """Write a snapshot of the SQLite database into the new file `copy`, compacted. Blocks; the platform that
    owns it continues to serve reads and writes.

    Raises ConfigError for another database or a `copy` that exists, QiluError when it cannot be written.
    """
    try:
        url = make_url(db_url)
    except ArgumentError as error:
        raise ConfigError("--db names no database: use sqlite:///path.") from error
    if url.drivername != "sqlite":
        raise ConfigError(
            "--db is no SQLite file: back PostgreSQL up with pg_dump, as docs/operations.md says."
        )
    source = Path(str(url.database))
    if not source.is_file():
        raise ConfigError(f"--db {source} is no file: name the registry that is to be copied.")
    if copy.exists():
        raise ConfigError(f"{copy} exists: name a new file.")
    try:
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # it holds hashes of keys
    except OSError as error:
        raise QiluError(f"{copy} cannot be written: {error.strerror}.") from error
    try:
        # One reading transaction: in WAL mode it sees one moment and keeps nobody waiting.
        with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=60)) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.Error as error:
        copy.unlink()
        raise QiluError(f"{source} cannot be copied to {copy}: {error}.") from error
