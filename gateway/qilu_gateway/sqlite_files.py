"""Resilient SQLite files: classifies errors as transient or damage, checks whether an open file is still the
one at its path, and salvages readable rows of a damaged file.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from qilu_common import private_files

_T = TypeVar("_T")

SUFFIXES = ("-wal", "-shm", "")
"""Suffixes of a file's WAL and its index, removed before the file itself: a WAL left behind would be applied
to the next file."""
SEARCH_IDS = 1_000_000
"""Maximum number of rows to look up one at a time, between those that a damaged table still returns in
order."""
_PASSING = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
    )
)
_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT))
_PASSING_ERRNOS = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOENT,
    )
)
Identity = tuple[int, ...]
"""Identity of the file at a path: device and inode; empty without a file."""


def is_passing(error: Exception) -> bool:
    """Whether the error is transient: the disk is full, read-only or unavailable, and the file itself may be
    intact."""
    if isinstance(error, OSError):
        return error.errno in _PASSING_ERRNOS
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error shows that the file is damaged."""
    # A missing table existed when the file was opened.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE or "no such table" in str(error)


def identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino


def open_private(path: Path, **how: Any) -> sqlite3.Connection:
    """Connect to a file. A new file, and its WAL, are readable by the owner only, whatever the umask."""
    # Only a new file is opened here: closing one that SQLite has open in this process would end its locks.
    with suppress(OSError):  # connecting raises the better error
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    connection: sqlite3.Connection = sqlite3.connect(path, **how)
    return connection


def remove_file(path: Path) -> None:
    for suffix in SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def rename_file(path: Path, new: Path) -> None:
    """Rename a file. No connection to it may be open: closing it would delete the WAL at the old path, which
    may belong to another file by then."""
    for suffix in SUFFIXES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(new.with_name(new.name + suffix))


def write_copy(connection: sqlite3.Connection, path: Path) -> None:
    """Write a copy of an open connection's database to `path`, durable on return. Works even if the
    connection's file has been deleted."""
    remove_file(path)
    try:
        with closing(open_private(path)) as copy:
            connection.backup(copy)
        sync(path)
    except BaseException:
        remove_file(path)
        raise


def sync(path: Path) -> None:
    """Sync the file and its directory entry to disk."""
    for each in (path, path.parent):
        private_files.sync(each)


def salvage(
    damaged: Path,
    saved: Path,
    open_new: Callable[[Path], sqlite3.Connection],
    save: Callable[[Path, sqlite3.Connection], _T],
) -> _T:
    """Write what `save` reads from the damaged file into a new file, `saved`, which is on disk then; returns
    what `save` returns."""
    remove_file(saved)
    try:
        with closing(open_new(saved)) as target:
            found = save(damaged, target)
        sync(saved)
    except BaseException:
        remove_file(saved)
        raise
    return found


def save_readable(damaged: Path, target: sqlite3.Connection) -> dict[str, int]:
    """Copy the readable rows of a damaged file into `target`, a new file with all its tables; returns the
    number of rows per table. Tables named `…_total` are maintained by triggers of the target."""
    saved: dict[str, int] = {}
    target.execute("PRAGMA recursive_triggers = ON")  # REPLACE deletes, too
    with closing(sqlite3.connect(damaged, isolation_level=None)) as source, target:
        source.text_factory = lambda text: text.decode(errors="replace")
        source.execute("PRAGMA writable_schema = ON")  # otherwise a truncated file cannot be read at all
        for [table] in target.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        ).fetchall():
            if table.endswith("_total"):
                continue
            columns = target.execute(f'PRAGMA table_info("{table}")').fetchall()
            marks = ", ".join("?" * len(columns))
            for row in readable_rows(source, table, columns):
                try:
                    target.execute(f'REPLACE INTO "{table}" VALUES ({marks})', row)  # noqa: S608
                except sqlite3.IntegrityError:  # damaged row
                    continue
                saved[table] = saved.get(table, 0) + 1
    return saved


def readable_rows(
    source: sqlite3.Connection, table: str, columns: list[tuple[Any, ...]]
) -> Iterator[tuple[Any, ...]]:
    """Readable rows of a damaged table: forwards from the first, backwards from the last, and those between
    by their ids. `columns` has the format of PRAGMA table_info."""
    names = ", ".join(f'"{column[1]}"' for column in columns)
    keys = [f'"{column[1]}"' for column in sorted(columns, key=lambda column: column[5]) if column[5]]
    try:
        source.execute(f'SELECT rowid FROM "{table}" LIMIT 0')  # noqa: S608  # names from the schema
        keys = ["rowid"]
    except sqlite3.DatabaseError:
        pass
    key = ", ".join(keys)
    last: tuple[Any, ...] | None = None
    first: tuple[Any, ...] | None = None
    try:
        for row in source.execute(f'SELECT {key}, {names} FROM "{table}" ORDER BY {key}'):  # noqa: S608
            last = row[: len(keys)]
            yield row[len(keys) :]
        return
    except sqlite3.DatabaseError:
        pass
    descending = ", ".join(f"{name} DESC" for name in keys)
    try:
        for row in source.execute(f'SELECT {key}, {names} FROM "{table}" ORDER BY {descending}'):  # noqa: S608
            if last is not None and row[: len(keys)] <= last:
                return
            first = row[: len(keys)]
            yield row[len(keys) :]
    except sqlite3.DatabaseError:
        pass
    if keys != ["rowid"]:
        return
    begin = 0 if last is None else last[0] + 1
    end = begin + SEARCH_IDS if first is None else first[0]
    for id_ in range(max(begin, end - SEARCH_IDS), end):
        try:
            row = source.execute(f'SELECT {names} FROM "{table}" WHERE rowid = ?', (id_,)).fetchone()  # noqa: S608
        except sqlite3.DatabaseError:
            continue
        if row is not None:
            yield row
