"""Classifies database errors: a full disk, a damaged file, an unavailable server."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from qilu_contract.errors import ConfigError
from sqlalchemy import (
    make_url,
)
from sqlalchemy.exc import DBAPIError


def has_no_room(error: Exception) -> bool:
    """The disk is full: what failed works once there is room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


def is_damaged(error: Exception) -> bool:
    """SQLite's file does not hold what was written."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Around what a command asks a database of: raises ConfigError when it does not answer or is none."""
    try:
        yield
    except (DBAPIError, OSError) as error:
        raise unreachable(url, error) from error


def unreachable(url: str, error: DBAPIError | OSError) -> ConfigError:
    """A sentence for a database that could not be opened when the platform started."""
    reason = str(error.orig if isinstance(error, DBAPIError) else error.strerror).strip().splitlines()[0]
    return ConfigError(f"--db {make_url(url).render_as_string()} cannot be opened: {reason}.")
