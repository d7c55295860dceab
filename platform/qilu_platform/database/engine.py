"""Engines for SQLite and PostgreSQL."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from qilu_contract.errors import ConfigError
from sqlalchemy import (
    Connection,
    Engine,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError

from qilu_platform.database.faults import answering
from qilu_platform.database.statements import crc

THREADS = 8
"""Connections a replica holds to PostgreSQL, and readers of SQLite: more only wait for the same disk."""
WRITES = "qilu_writes"
RESUMED = "qilu_resumed"


def open_engine(url: str, password: str | None = None) -> Engine:
    """An engine for `sqlite:///path` or `postgresql://…`; connects when it is used. Raises ConfigError for
    other URLs."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            "--db names no database: use sqlite:///path or postgresql://user@host/name."
        ) from error
    if parsed.drivername in ("postgresql", "postgresql+psycopg"):
        if password is not None and parsed.password is None:
            parsed = parsed.set(password=password)
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=THREADS,
            max_overflow=0,
            pool_timeout=10,
            pool_pre_ping=True,
            # A statement that takes half a minute is a fault, and must not hold locks for longer.
            connect_args={"connect_timeout": 5, "options": "-c statement_timeout=30s -c lock_timeout=20s"},
        )
    if parsed.drivername == "sqlite" and parsed.database and parsed.database != ":memory:":
        engine = create_engine(parsed, pool_size=THREADS, max_overflow=1, pool_timeout=10)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    raise ConfigError(
        f"--db {parsed.render_as_string()} cannot hold the registry: use sqlite:///path or postgresql://user@host/name."
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begin_sqlite does
    connection.create_function("row_digest", -1, crc, deterministic=True)
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA journal_mode = WAL")
    # synchronous is set by each write: see _begin_sqlite.
    connection.execute("PRAGMA foreign_keys = ON")
    # KiB. Keeps the pages that an import touches, the ends of two trees, in memory; the default, 2 MB, is too
    # small.
    connection.execute("PRAGMA cache_size = -32768")
    # Pages, 16 MB. Each block of an import touches most of its county's part of the index by enterprise: this
    # way those pages go from the log into the file once for several blocks.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get(WRITES, False):
        level = "NORMAL" if options.get(RESUMED, False) else "FULL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that writes, committed at the end: of a command, not of a platform that serves."""
    return engine.execution_options(**{WRITES: True}).begin()


def check_reachable(url: str, password: str | None = None) -> None:
    """Connect once. Raises ConfigError when the registry cannot be kept there."""
    engine = open_engine(url, password)
    try:
        with answering(url), engine.connect() as connection:
            if connection.dialect.name == "sqlite":  # reads the file; SELECT 1 would not
                connection.exec_driver_sql("PRAGMA schema_version")
    finally:
        engine.dispose()
