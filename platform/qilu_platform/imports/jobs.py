"""Import jobs: a file of enterprises or units, registered block by block as it arrives.

The transaction that registers a block's rows notes its bad lines and moves the job's offset on, too. So a
connection may break anywhere: the job's offset is after its last whole block, and it continues from there on
any replica; rows that are sent twice are registered once. While the database writes a block, the next ones
are read, checked and prepared.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from functools import partial
from typing import Any

import msgspec
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, case, func, select, update

from qilu_platform.counting import ledger
from qilu_platform.counting.ledger import Entry
from qilu_platform.database.schema import import_errors, imports
from qilu_platform.database.statements import insert_rows
from qilu_platform.database.transactions import Database
from qilu_platform.errors import Conflict, Invalid, NotFound
from qilu_platform.imports.loading import Loaded, NotNewError, Owners, Ready, load, prepare
from qilu_platform.imports.parsing import Block, parse, read_header
from qilu_platform.imports.splitting import BLOCK, Splitter, WrongFile, check_encoding, check_kind
from qilu_platform.registry import audit_log
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.registration import BOOKS

FORMATS = {"text/csv": "csv", "application/x-ndjson": "ndjson", "application/jsonl": "ndjson"}
AHEAD = 8
"""Blocks that are made ready while the database takes others."""
FEW, GROWTH = 20_000, 4
"""The database's planner learns of the rows when there are so many, and when they have grown so much."""
MAX_REASONS = 100_000
"""Bad lines of a job whose reasons are kept; the others are counted. A few kilobytes of gzip can hold
millions of bad lines."""
MAX_REASON = 500
"""Characters of the reason that is kept for a bad line."""


def open_job(connection: Connection, caller: Caller, book: str) -> str:
    """A new job's id."""
    id_, now_ms = f"import-{secrets.token_hex(8)}", wall_ms()
    counts = dict.fromkeys(("offset", "lines", "created", "existing", "bad"), 0)
    row = {"id": id_, "book": book, "state": "open", "key": caller.key}
    connection.execute(imports.insert().values(**row, **counts, begun_ms=now_ms, changed_ms=now_ms))
    return id_


def show_job(connection: Connection, id_: str) -> dict[str, Any]:
    """The job as the API shows it. Raises NotFound."""
    row = connection.execute(select(imports).where(imports.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound(f"import {id_} does not exist.")
    return shown(row._mapping)


def shown(row: Any) -> dict[str, Any]:
    names = ("id", "book", "format", "state", "offset", "lines", "created", "existing", "bad")
    job = {name: row[name] for name in (*names, "key", "begun_ms", "changed_ms")}
    return job | {"errors": f"/v1/imports/{row['id']}/errors"}


def list_jobs(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """The latest first."""
    query = select(imports).order_by(imports.c.begun_ms.desc(), imports.c.id).limit(limit)
    return [shown(row._mapping) for row in connection.execute(query)]


def count_jobs(connection: Connection) -> dict[str, int]:
    """Jobs that are open, and the lines of all jobs so far, as the measurement `platform` holds them."""
    is_open = case((imports.c.state == "open", 1), else_=0)
    totals = (func.coalesce(func.sum(each), 0) for each in (is_open, imports.c.lines, imports.c.bad))
    names = ("imports_open", "import_lines", "import_lines_bad")
    return dict(zip(names, map(int, connection.execute(select(*totals)).one()), strict=True))


class Elsewhere(Conflict):
    """The job's offset differs from the request's. `offset` is the job's, if known."""

    def __init__(self, id_: str, offset: int | None) -> None:
        where = "another request continues it" if offset is None else f"its offset is {offset}"
        super().__init__(f"import {id_} is at another offset: {where}; GET it and continue from there.")
        self.offset = offset


class BrokenOff(Exception):
    """The connection that brings a file broke."""


class Import:
    """The part of a job in one request: the bytes from `offset` on."""

    def __init__(self, database: Database, caller: Caller, id_: str) -> None:
        self._database, self._caller, self._id = database, caller, id_
        self._owners: Owners = {}
        self._job: dict[str, Any] = {}
        self._names: list[str] | None = None
        self._planned_for = FEW
        self._read = 0
        """Lines that were read: the job's own number is that of the lines that are done."""
        self._unchecked = BLOCK
        """Bytes whose encoding is to be looked at, until they tell."""

    async def run(
        self, body: AsyncIterable[bytes], format_: str, offset: int, *, gzipped: bool, complete: bool
    ) -> None:
        """Read `body` to its end. `complete` says that the file ends with it.

        Raises NotFound for an unknown job, Conflict if its offset differs or it has ended, Invalid for an
        invalid file, which ends the job; and BrokenOff when the connection breaks, after the complete lines
        were registered.
        """
        await self._begin(format_, offset)
        splitter = Splitter(gzipped=gzipped)
        broken: BrokenOff | None = None

        async def blocks() -> AsyncIterator[bytes]:
            nonlocal broken
            try:
                async for data in body:
                    for block in splitter.feed(data):
                        yield block
            except BrokenOff as error:
                broken = error
            for block in splitter.finish(complete=complete and broken is None):
                yield block

        coming, group = blocks(), list[Ready]()
        entering: asyncio.Task[None] | None = None
        try:
            while True:
                ready = await self._next(coming)
                if ready is not None:
                    group.append(ready)
                    if entering is not None and not entering.done() and len(group) < AHEAD:
                        continue
                if entering is not None:
                    await entering
                if not group:
                    break
                entering, group = asyncio.create_task(self._take(group)), []
        except WrongFile as error:
            if entering is not None:
                await entering
            await self._take(group)
            raise await self._refuse(error) from error
        finally:
            if entering is not None:
                await asyncio.gather(entering, return_exceptions=True)
        if broken is not None:
            raise broken
        if complete:
            await self._database.write(self._finish)
            await self._database.refresh_statistics(BOOKS[self._job["book"]].table)

    async def _begin(self, format_: str, offset: int) -> None:
        def work(connection: Connection) -> dict[str, Any]:
            row = connection.execute(select(imports).where(imports.c.id == self._id)).one_or_none()
            if row is None:
                raise NotFound(f"import {self._id} does not exist.")
            return dict(row._mapping)

        job = self._job = await self._database.read(work)
        self._names = None if job["columns"] is None else msgspec.json.decode(job["columns"])
        if job["state"] != "open":
            how = "is done" if job["state"] == "done" else "was refused"
            raise Conflict(f"import {self._id} {how}: open another one for another file.")
        if job["offset"] != offset:
            raise Elsewhere(self._id, job["offset"])
        if job["format"] not in (None, format_):
            raise Invalid(f"Content-Type: this import began as {job['format']}: continue with that.")
        job["format"] = format_
        self._read = job["lines"]
        self._unchecked -= offset

    async def _next(self, blocks: AsyncIterator[bytes]) -> Ready | None:
        block = await anext(blocks, None)
        if block is None:
            return None
        job, skip = self._job, 0
        if self._unchecked > 0:
            if self._read == 0:
                check_kind(block)
            mistake = check_encoding(block, self._read + 1)
            self._unchecked = 0 if mistake else self._unchecked - len(block)
        if self._read == 0:
            if job["format"] == "csv":
                self._names, skip = read_header(job["book"], block)
            elif block.startswith(b"\xef\xbb\xbf"):
                skip = 3
        header = 1 if self._names is not None and skip else 0
        line = self._read + 1 + header
        rest = block[skip:]

        def work(connection: Connection) -> Ready:
            parsed = parse(job["book"], self._names, rest, line) if rest else Block(0, 0)
            parsed.size, parsed.lines = len(block), parsed.lines + header
            return prepare(connection, job["book"], parsed, self._owners)

        # Not in the writer: other writes go first meanwhile.
        ready = await self._database.read(work)
        self._read += ready.lines
        return ready

    async def _take(self, group: Sequence[Ready]) -> None:
        job, write = self._job, self._database.write
        while group:
            try:
                done = await write(partial(self._enter, group=group, new=True), resumed=True)
            except NotNewError:
                done = await write(partial(self._enter, group=group[:1], new=False), resumed=True)
            for ready, loaded in zip(group, done, strict=False):
                job["offset"] += ready.size
                job["lines"] += ready.lines
                job["created"] += loaded.created
                job["existing"] += loaded.existing
                job["bad"] += len(loaded.errors)
            group = group[len(done) :]
        if job["created"] > self._planned_for * GROWTH:
            self._planned_for = job["created"]
            await self._database.refresh_statistics(BOOKS[job["book"]].table)

    def _enter(self, connection: Connection, group: Sequence[Ready], *, new: bool) -> list[Loaded]:
        """Insert as many blocks as time allows, at least one: while no other writer waits, they share a
        transaction, which writes common data once."""
        job = self._job
        done: list[Loaded] = []
        for ready in group:
            if done and self._database.contended():
                break
            try:
                done.append(load(connection, ready, new=new))
            except NotNewError:
                if not done:
                    raise
                break  # SQLite took back that statement, and no more
        taken = group[: len(done)]
        errors = {
            error.line: {
                "import": self._id,
                "line": error.line,
                "column": error.column,
                "reason": error.detail[:MAX_REASON],
            }
            for loaded in done
            for error in loaded.errors
        }
        if kept := list(errors.values())[: max(0, MAX_REASONS - job["bad"])]:
            connection.execute(insert_rows(connection, import_errors, kept))
        moved = connection.execute(
            update(imports)
            .where(imports.c.id == self._id, imports.c.offset == job["offset"], imports.c.state == "open")
            .values(
                offset=imports.c.offset + sum(ready.size for ready in taken),
                lines=imports.c.lines + sum(ready.lines for ready in taken),
                created=imports.c.created + sum(loaded.created for loaded in done),
                existing=imports.c.existing + sum(loaded.existing for loaded in done),
                bad=imports.c.bad + len(errors),
                format=job["format"],
                columns=None if self._names is None else msgspec.json.encode(self._names).decode(),
                changed_ms=wall_ms(),
            )
        )
        if moved.rowcount != 1:
            # Rolls the rows back as well: another request continues the job.
            raise Elsewhere(self._id, None)
        entries: Counter[Entry] = Counter()
        for loaded in done:
            entries.update(loaded.entries)
        rows = sum(loaded.sealed[0] for loaded in done)
        digest = sum(loaded.sealed[1] for loaded in done)
        ledger.append(connection, entries, {job["book"]: (rows, digest)})
        return done

    async def _refuse(self, error: WrongFile) -> Invalid:
        """Close the job; the answer says what had been registered by then, and stays."""
        await self._database.write(partial(self._finish, state="refused"))
        job, detail = self._job, str(error)
        if job["lines"]:
            detail += (
                f" The {job['lines']} lines before were taken: {job['created']} registered, "
                f"{job['existing']} there already, {job['bad']} bad. Fix the file and send all of it again: "
                "what is registered is not registered twice."
            )
        return Invalid(detail)

    def _finish(self, connection: Connection, state: str = "done") -> None:
        job = self._job
        moved = connection.execute(
            update(imports)
            .where(imports.c.id == self._id, imports.c.offset == job["offset"], imports.c.state == "open")
            .values(state=state, changed_ms=wall_ms())
        )
        if moved.rowcount != 1:
            raise Elsewhere(self._id, None)
        created = connection.scalar(select(imports.c.created).where(imports.c.id == self._id))
        if created:
            audit_log.record(connection, self._caller, "imported", job["book"], created=created, by=self._id)
