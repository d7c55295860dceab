"""The registry's database: SQLite or PostgreSQL, the same statements for both, always in a thread.

SQLite has one writer (one thread, BEGIN IMMEDIATE) and readers beside it; PostgreSQL has as many as threads,
and any number of platforms may share it. There every statement of a transaction sees what others committed
before it, so a count is taken of rows that are locked, never of rows that an earlier statement saw. All
transactions lock in one order, so that they wait for each other and do not deadlock: the lock of suspensions
or recognitions, enterprises, units, contracts, hours of activity, counters, the lock of barring; rows of one
table in the order of their ids.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from qilu_common.private_files import private_file
from qilu_contract.errors import ConfigError, QiluError
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    FromClause,
    String,
    Table,
    Text,
    bindparam,
    cast,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.types import TypeEngine

log = structlog.get_logger()
T = TypeVar("T")

THREADS = 8
"""Connections a replica holds to PostgreSQL, and readers of SQLite: more only wait for the same disk."""
MAX_WAITING = 256
"""Calls that may wait for a thread; the next is refused at once (503) instead of waiting longer than its
client does."""
MAX_TRIES = 5
"""Tries of a transaction that PostgreSQL ended for the sake of another."""
_RETRIED = ("40001", "40P01")  # serialization failure, deadlock
_WRITES = "qilu_writes"
_RESUMED = "qilu_resumed"
_START_LOCK = 0x71696C75  # "qilu": any numbers that all replicas agree on
_BARRING_LOCK = _START_LOCK + 1
_SUSPENDING_LOCK = _START_LOCK + 2
_RECOGNISING_LOCK = _START_LOCK + 3


class DatabaseBusy(QiluError):
    """Too many calls wait for the database already: come again later."""


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
    connection.create_function("row_digest", -1, _crc, deterministic=True)
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA journal_mode = WAL")
    # synchronous is set by each write: see _begin_sqlite.
    connection.execute("PRAGMA foreign_keys = ON")
    # KiB. What an import touches, the ends of two trees, stays in memory; the default, 2 MB, is too small.
    connection.execute("PRAGMA cache_size = -32768")
    # Pages, 16 MB. Each block of an import touches most of its county's part of the index by enterprise: this
    # way those pages go from the log into the file once for several blocks.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get(_WRITES, False):
        level = "NORMAL" if options.get(_RESUMED, False) else "FULL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {level}")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql("BEGIN")


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that writes, committed at the end: of a command, not of a platform that serves."""
    return engine.execution_options(**{_WRITES: True}).begin()


class Database:
    """Runs functions of a connection in a transaction, in a thread. Opened by `async with`, which also
    migrates."""

    def __init__(self, url: str, password: str | None = None) -> None:
        self.engine = open_engine(url, password)
        self._writing = self.engine.execution_options(**{_WRITES: True})
        one_writer = self.engine.dialect.name == "sqlite"
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="qilu-db-read")
        self._writers = (
            ThreadPoolExecutor(1, thread_name_prefix="qilu-db-write") if one_writer else self._readers
        )
        self._file = Path(str(self.engine.url.database)) if one_writer else None
        self._waiting = 0
        self._writes = 0
        self.trouble = ""
        """Why nothing can be written, in one sentence; empty when the last write could."""

    async def __aenter__(self) -> Self:
        try:
            if self._file is not None:
                await asyncio.to_thread(self._file.parent.mkdir, parents=True, exist_ok=True)
                await asyncio.to_thread(private_file, self._file)
            await self.write(migrate)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        def close() -> None:
            self._writers.shutdown()
            self._readers.shutdown()
            self.engine.dispose()

        await asyncio.to_thread(close)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returns, from one transaction that changes nothing."""

        def run() -> T:
            with self.engine.connect() as connection:
                return fn(connection)

        return await self._run(self._readers, run)

    async def compute(self, fn: Callable[[], T]) -> T:
        """What `fn` returns, in a thread: work beside the database that is too long for the event loop."""
        return await self._run(self._readers, fn)

    async def write(self, fn: Callable[[Connection], T], *, resumed: bool = False) -> T:
        """What `fn` returns, durable. `fn` may run more than once: all it does must be in the transaction.

        `resumed` is for steps of work that goes on from where it durably stands: they do not wait for the
        disk, and when the power goes the last of them may be undone, in order and as a whole. The next write
        without it makes them durable too.
        """
        writing = self._writing.execution_options(**{_RESUMED: True}) if resumed else self._writing
        relaxed = resumed and self._file is None

        def run() -> T:
            for left in reversed(range(MAX_TRIES)):
                try:
                    with writing.begin() as connection:
                        if relaxed:
                            connection.execute(text("SET LOCAL synchronous_commit = off"))
                        return fn(connection)
                except DBAPIError as error:
                    if not left or getattr(error.orig, "sqlstate", None) not in _RETRIED:
                        raise
            raise AssertionError("the last try returns or raises")

        self._writes += 1
        try:
            found = await self._run(self._writers, run)
        except DBAPIError as error:
            if has_no_room(error):
                if not self.trouble:
                    log.error("the registry's disk is full: changes are refused until it has room")
                self.trouble = f"the registry's disk is full ({error.orig}): changes are refused"
            raise
        finally:
            self._writes -= 1
        if self.trouble:
            self.trouble = ""
            log.info("the registry's disk takes changes")
        return found

    def contended(self) -> bool:
        """Whether others may wait for the write that asks; on PostgreSQL, which has other writers, always."""
        return self._file is None or self._writes > 1

    async def refresh_statistics(self, table: Table) -> None:
        """After a table grew by much at once: PostgreSQL would plan for its old size, for a minute, and read
        all of it for a page. SQLite plans well without."""
        if self._file is None:
            await self.write(lambda connection: connection.execute(text(f'ANALYZE "{table.name}"')))

    async def _run(self, threads: ThreadPoolExecutor, run: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise DatabaseBusy(f"{MAX_WAITING} calls wait for the database already; come again in a second.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, run)
        finally:
            self._waiting -= 1


def lock_start(connection: Connection) -> None:
    """Until the transaction ends, no other platform does what is done once when one starts."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _START_LOCK})


def lock_barring(connection: Connection) -> None:
    """Taken last in a transaction: until it ends, no other one enters that somebody is barred. So the numbers
    of such entries grow in the order in which they become visible, and who reads on from one misses none."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _BARRING_LOCK})


def lock_suspensions(connection: Connection, *, shared: bool) -> None:
    """Taken first in a transaction that suspends or resumes an enterprise; `shared` in one that relies on no
    enterprise being suspended or resumed until it ends. One lock instead of the enterprises' rows: a block of
    an import has thousands of them."""
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        connection.execute(select(lock(_SUSPENDING_LOCK)))


def lock_recognitions(connection: Connection) -> None:
    """Until the transaction ends, no other one places a platform in a tier."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_RECOGNISING_LOCK)))


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


def check_reachable(url: str, password: str | None = None) -> None:
    """Connect once. Raises ConfigError when the registry cannot be kept there."""
    engine = open_engine(url, password)
    try:
        with answering(url), engine.connect() as connection:
            if connection.dialect.name == "sqlite":  # reads the file; SELECT 1 would not
                connection.exec_driver_sql("PRAGMA schema_version")
    finally:
        engine.dispose()


def unreachable(url: str, error: DBAPIError | OSError) -> ConfigError:
    """A sentence for a database that could not be opened when the platform started."""
    reason = str(error.orig if isinstance(error, DBAPIError) else error.strerror).strip().splitlines()[0]
    return ConfigError(f"--db {make_url(url).render_as_string()} cannot be opened: {reason}.")


def rows_table(
    connection: Connection, columns: Sequence[Column[Any]], rows: Sequence[Sequence[Any]]
) -> FromClause:
    """`rows` as a table `given` with the names and types of `columns`, in one parameter (SQLite) or one a
    column (PostgreSQL)."""
    if connection.dialect.name == "sqlite":
        each = func.json_each(bindparam(None, msgspec.json.encode(rows).decode(), String)).table_valued(
            "value"
        )
        fields = [
            func.json_extract(each.c.value, f"$[{place}]", type_=column.type).label(column.name)
            for place, column in enumerate(columns)
        ]
        return select(*fields).subquery("given")
    turned: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [
        bindparam(None, list(values), postgresql.ARRAY(_bare(column.type)))
        for values, column in zip(turned, columns, strict=True)
    ]
    names = [Column(column.name, column.type) for column in columns]
    return func.unnest(*arrays).table_valued(*names, name="given").render_derived()


def _bare(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    # A length in a cast cuts silently; the column itself refuses what is too long.
    return String() if isinstance(type_, String) else type_


def among(connection: Connection, column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """The condition that `column` is one of `values`, however many, in one parameter."""
    if connection.dialect.name == "sqlite":
        each = func.json_each(bindparam(None, msgspec.json.encode(values).decode(), String)).table_valued(
            "value"
        )
        return column.in_(select(each.c.value))
    return column == func.any(bindparam(None, list(values), postgresql.ARRAY(_bare(column.type))))


def _joined(values: Sequence[str | int | None]) -> bytes:
    return "\x1f".join(["" if value is None else str(value) for value in values]).encode()


def _crc(*values: str | int | None) -> int:
    return zlib.crc32(_joined(values))


def _sha(*values: str | int | None) -> int:
    return int.from_bytes(hashlib.sha256(_joined(values)).digest()[:4])


def row_digest(connection: Connection) -> Callable[..., int]:
    """32 bits that tell rows apart: the same of the same values as `digest_of` finds in the database. SQLite
    calls us for it, as cheaply as there is; PostgreSQL has no checksum but cryptographic ones."""
    return _crc if connection.dialect.name == "sqlite" else _sha


def digest_of(connection: Connection, columns: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    """`row_digest` of these columns, computed by the database."""
    if connection.dialect.name == "sqlite":
        return func.row_digest(*columns, type_=BigInteger)
    texts = [func.coalesce(cast(column, Text), "") for column in columns]
    joined: ColumnElement[str] = texts[0]
    for each in texts[1:]:
        joined = joined.concat("\x1f").concat(each)
    hashed = func.encode(func.sha256(func.convert_to(joined, "UTF8")), "hex")
    return cast(cast(func.concat("x", func.left(hashed, 8)), postgresql.BIT(32)), BigInteger)


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> postgresql.Insert | sqlite.Insert:
    """The statement that inserts `rows` (all with the same keys) in their order; the caller says what happens
    on conflict."""
    names = list(rows[0])
    given = rows_table(connection, [table.c[name] for name in names], [list(row.values()) for row in rows])
    # `WHERE true` lets SQLite tell ON CONFLICT from the ON of a join.
    source = select(*given.c).where(true())
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return make(table).from_select(names, source)
