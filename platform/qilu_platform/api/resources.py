"""Generic routes of registered resources (create, get, list), made from their descriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel
from qilu_contract.wire.ids import ID_PATTERN
from sqlalchemy import Connection

from qilu_platform.api.common import (
    CONFLICT,
    NOT_FOUND,
    TOO_LARGE,
    AnId,
    ReaderOrFleet,
    RuntimeDep,
    allow,
    answer,
)
from qilu_platform.errors import NotFound
from qilu_platform.models.bodies import Body, NameIn
from qilu_platform.models.fields import Role
from qilu_platform.registry import audit_log
from qilu_platform.registry.idempotency import Repeatable
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.listing import Filters, get_row, owner_of, page
from qilu_platform.registry.registration import BOOKS, register_one
from qilu_platform.registry.renaming import rename
from qilu_platform.runtime import Runtime

Cursor = Annotated[str | None, Query(pattern=ID_PATTERN, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]
RepeatKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same request with the same key is done once, and answered alike for 24 hours.",
    ),
]


def _anything(_caller: Caller, _body: Any) -> None:
    """Default check of the creator besides the role: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Description of a kind of registered resource. `book` is its name in the registry and in paths."""

    book: str
    body: type[Body]
    shown: type[BaseModel]
    page: type[BaseModel]
    writers: tuple[Role, ...]
    renamers: tuple[Role, ...] = ()
    """Roles that may change its name; empty if it has none."""
    filters: Callable[..., Filters]
    """A dependency: the query parameters that narrow a list."""
    check: Callable[[Caller, Any], None] = _anything
    """Raises Problem for a body that this caller may not register."""
    created: str = ""
    """Description of its creation in the API documentation."""
    listed: str = "In the order of ids."

    @property
    def name(self) -> str:
        return singular(self.book)


def singular(book: str) -> str:
    return book.removesuffix("s")


def add_routes(router: APIRouter, resource: Resource) -> None:
    """`POST /{book}`, `GET /{book}/{id}`, `GET /{book}`, and `PATCH /{book}/{id}` of what has a name."""
    book, name = resource.book, resource.name

    async def create(runtime: RuntimeDep, caller: Any, body: Any, key: RepeatKey = None) -> Response:
        resource.check(caller, body)
        return await _create(runtime, caller, book, body.row(), key)

    async def get(runtime: RuntimeDep, caller: ReaderOrFleet, id: AnId) -> Response:
        return await show(runtime, caller, book, id)

    async def list_(
        runtime: RuntimeDep, caller: ReaderOrFleet, filters: Any, cursor: Cursor = None, limit: Limit = 100
    ) -> Response:
        narrowed, table = replace(filters, only=caller.enterprise), BOOKS[book].table
        return answer(await runtime.database.read(lambda found: page(found, table, narrowed, cursor, limit)))

    # FastAPI reads annotations when the route is added: these differ by resource.
    create.__annotations__ |= {
        "caller": Annotated[Caller, Depends(allow(*resource.writers))],
        "body": resource.body,
    }
    list_.__annotations__["filters"] = Annotated[Filters, Depends(resource.filters)]
    router.add_api_route(
        f"/{book}",
        create,
        methods=["POST"],
        name=f"create_{name}",
        description=resource.created,
        status_code=201,
        response_model=resource.shown,
        responses=CONFLICT
        | TOO_LARGE
        | {200: {"description": "It was there already, the same.", "model": resource.shown}},
    )
    router.add_api_route(
        f"/{book}/{{id}}", get, name=f"get_{name}", response_model=resource.shown, responses=NOT_FOUND
    )
    router.add_api_route(
        f"/{book}", list_, name=f"list_{book}", description=resource.listed, response_model=resource.page
    )
    if resource.renamers:
        _add_rename(router, resource)


def _add_rename(router: APIRouter, resource: Resource) -> None:
    book, table = resource.book, BOOKS[resource.book].table

    async def rename_it(runtime: RuntimeDep, caller: Any, id: AnId, body: NameIn) -> Response:
        await show(runtime, caller, book, id)

        def work(connection: Connection) -> None:
            was = rename(connection, table, id, body.name)
            if was != body.name:
                subject = f"{book}/{id}"
                audit_log.record(connection, caller, "renamed", subject, name=body.name, was=was)

        await runtime.database.write(work)
        return await show(runtime, caller, book, id)

    rename_it.__annotations__["caller"] = Annotated[Caller, Depends(allow(*resource.renamers))]
    router.add_api_route(
        f"/{book}/{{id}}",
        rename_it,
        methods=["PATCH"],
        name=f"rename_{resource.name}",
        description="Changes its name; the audit log keeps the old one.",
        response_model=resource.shown,
        responses=NOT_FOUND,
    )


async def _create(
    runtime: Runtime, caller: Caller, book: str, row: dict[str, Any], key: str | None
) -> Response:
    """201 with the new thing, or 200 with the one that was there already, the same."""
    asked = Repeatable(caller, key, book, row)

    def work(connection: Connection) -> tuple[dict[str, Any], int]:
        id_, new = register_one(connection, BOOKS[book], row, confined_to=caller.enterprise)
        if new:
            audit_log.record(connection, caller, "registered", f"{book}/{id_}")
        item = get_row(connection, BOOKS[book].table, id_)
        assert item is not None
        return item, 201 if new else 200

    item, status = await runtime.database.write(lambda connection: asked.run(connection, work))
    return answer(item, status, {"Location": f"/v1/{book}/{item['id']}"})


async def show(runtime: Runtime, caller: Caller, book: str, id_: str) -> Response:
    """Get one resource. Raises NotFound also if the caller may not see it."""
    table = BOOKS[book].table
    item = await runtime.database.read(lambda connection: get_row(connection, table, id_))
    if item is None or not caller.sees(owner_of(table, item)):
        raise NotFound(f"{singular(book)} {id_} does not exist.")
    return answer(item)


async def change(
    runtime: Runtime, caller: Caller, subject: str, action: str, work: Callable[[Connection], bool]
) -> None:
    """Do `work`, which says whether it changed anything; what did is in the audit log."""

    def run(connection: Connection) -> None:
        if work(connection):
            audit_log.record(connection, caller, action, subject)

    await runtime.database.write(run)
