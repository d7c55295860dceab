"""Routes for whole files: imports as resumable jobs, exports as streams."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from qilu_contract.wire.ids import ID_PATTERN
from sqlalchemy import Connection, select
from starlette.requests import ClientDisconnect

from qilu_platform.api.common import (
    CONFLICT,
    NOT_FOUND,
    PROBLEMS,
    AnId,
    Fleet,
    ReaderOrFleet,
    Responses,
    RuntimeDep,
    answer,
)
from qilu_platform.api.problems import Problem
from qilu_platform.database.schema import import_errors
from qilu_platform.imports.jobs import FORMATS, BrokenOff, Elsewhere, Import, list_jobs, open_job, show_job
from qilu_platform.imports.parsing import guard
from qilu_platform.models.answers import EnterpriseOut, UnitOut
from qilu_platform.models.fields import (
    MAX_INTEGER,
    CityCode,
    ClassName,
    CountyCode,
    IndustryCode,
    UnitState,
)
from qilu_platform.models.reports import ImportOut, ImportsOut
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.listing import Filters, page
from qilu_platform.registry.registration import BOOKS
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["import and export"], responses=PROBLEMS)

ABook = Literal["enterprises", "units"]
ContentEncoding = Annotated[Literal["identity", "gzip"], Header(alias="Content-Encoding")]

EXPORT_PAGE = 2_000
"""Rows of an export that are read at a time: memory and other requests feel no more than that."""
_ERRORS_PAGE = 5_000

_TAKEN: Responses = {200: {"description": "The job, with what was taken.", "model": ImportOut}}
_FILE = {
    "requestBody": {
        "content": {
            "text/csv": {
                "schema": {"type": "string"},
                "example": "id,class,enterprise,name\n370202-motor-0000123,motor,370202-e00007,Pump 3\n",
            },
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": '{"id": "my-motor", "class": "motor", "enterprise": "370202-e00007"}\n',
            },
        }
    }
}


def _format(request: Request) -> str:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in FORMATS:
        raise Problem(
            415, "Content-Type says what the file is: send text/csv or application/x-ndjson, in UTF-8."
        )
    return FORMATS[given]


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for data in request.stream():
            yield data
    except ClientDisconnect as error:
        raise BrokenOff from error


async def _run(
    runtime: Runtime,
    caller: Caller,
    id_: str,
    request: Request,
    *,
    offset: int,
    gzipped: bool,
    complete: bool,
) -> Response:
    """Takes the request's part of the file; the job as it is then."""
    try:
        await Import(runtime.database, caller, id_).run(
            _body(request), _format(request), offset, gzipped=gzipped, complete=complete
        )
    except BrokenOff as error:
        raise ClientDisconnect from error
    except Elsewhere as error:
        headers = None if error.offset is None else {"Upload-Offset": str(error.offset)}
        raise Problem(409, str(error), headers=headers) from error
    return await _job(runtime, id_, 200)


async def _job(runtime: Runtime, id_: str, status: int) -> Response:
    job = await runtime.database.read(lambda connection: show_job(connection, id_))
    headers = {"Location": f"/v1/imports/{id_}", "Upload-Offset": str(job["offset"])}
    return answer(job, status, headers)


_UNSUPPORTED: Responses = {415: PROBLEMS[422] | {"description": "Neither CSV nor NDJSON."}}


@router.post(
    "/imports",
    status_code=201,
    response_model=ImportOut,
    responses=_TAKEN | CONFLICT | _UNSUPPORTED,
    openapi_extra=_FILE,
)
async def create_import(
    runtime: RuntimeDep,
    caller: Fleet,
    request: Request,
    book: Annotated[ABook, Query(description="Type of the lines.")],
    encoding: ContentEncoding = "identity",
) -> Response:
    """Registers a file of any size as it arrives. Without a body it only opens a job (201), which
    `PATCH /v1/imports/{id}` fills: the way to continue after a broken connection."""
    empty = request.headers.get("content-length") == "0" or (
        "content-length" not in request.headers and "transfer-encoding" not in request.headers
    )
    if not empty:
        _format(request)  # refused before a job is opened
    id_ = await runtime.database.write(lambda connection: open_job(connection, caller, book))
    if empty:
        return await _job(runtime, id_, 201)
    return await _run(runtime, caller, id_, request, offset=0, gzipped=encoding == "gzip", complete=True)


@router.patch(
    "/imports/{id}",
    response_model=ImportOut,
    responses=NOT_FOUND | CONFLICT | _UNSUPPORTED,
    openapi_extra=_FILE,
)
async def continue_import(
    runtime: RuntimeDep,
    caller: Fleet,
    request: Request,
    id: AnId,
    offset: Annotated[
        int,
        Header(
            alias="Upload-Offset", ge=0, le=MAX_INTEGER, description="The job's `offset`: bytes, before gzip."
        ),
    ],
    complete: Annotated[
        Literal["?1", "?0"], Header(alias="Upload-Complete", description="?0: more will follow.")
    ] = "?1",
    encoding: ContentEncoding = "identity",
) -> Response:
    """Sends the rest of the file from the job's offset, which is at the beginning of a line."""
    whole = complete == "?1"
    return await _run(runtime, caller, id, request, offset=offset, gzipped=encoding == "gzip", complete=whole)


@router.get("/imports", response_model=ImportsOut)
async def list_imports(
    runtime: RuntimeDep, _caller: Fleet, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """The latest jobs first."""
    return answer({"items": await runtime.database.read(lambda found: list_jobs(found, limit))})


@router.get("/imports/{id}", response_model=ImportOut, responses=NOT_FOUND)
async def get_import(runtime: RuntimeDep, _caller: Fleet, id: AnId) -> Response:
    """Progress of an import."""
    return await _job(runtime, id, 200)


@router.get(
    "/imports/{id}/errors",
    response_class=StreamingResponse,
    responses=NOT_FOUND
    | {
        200: {
            "description": "The bad lines, in order.",
            "content": {
                "application/x-ndjson": {
                    "schema": {"type": "string"},
                    "example": '{"line": 7, "column": "enterprise", "reason": "…"}\n',
                }
            },
        }
    },
)
async def list_import_errors(runtime: RuntimeDep, _caller: Fleet, id: AnId) -> Response:
    await runtime.database.read(lambda connection: show_job(connection, id))
    return StreamingResponse(_error_lines(runtime, id), media_type="application/x-ndjson")


async def _error_lines(runtime: Runtime, id_: str) -> AsyncIterator[bytes]:
    columns = [import_errors.c[name] for name in ("line", "column", "reason")]
    after = 0
    while True:
        query = (
            select(*columns)
            .where(import_errors.c["import"] == id_, import_errors.c.line > after)
            .order_by(import_errors.c.line)
            .limit(_ERRORS_PAGE)
        )

        def read(connection: Connection, query: Any = query) -> list[dict[str, Any]]:
            return [dict(row._mapping) for row in connection.execute(query)]

        rows = await runtime.database.read(read)
        if not rows:
            return
        yield msgspec.json.Encoder().encode_lines(rows)
        after = rows[-1]["line"]


_EXPORTED = {
    "units": tuple(field.alias or name for name, field in UnitOut.model_fields.items()),
    "enterprises": tuple(EnterpriseOut.model_fields),
}
_EXPORT: Responses = {
    200: {
        "description": "All that the filters leave, in the order of ids.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"type": "string"}},
        },
    }
}


@router.get("/export/{book}", response_class=StreamingResponse, responses=_EXPORT)
async def export_book(
    runtime: RuntimeDep,
    caller: ReaderOrFleet,
    book: ABook,
    format: Literal["csv", "ndjson"] = "csv",
    columns: Annotated[
        str | None,
        Query(max_length=400, description="Separated by commas, such as id,class,enterprise,name; else all."),
    ] = None,
    city: CityCode | None = None,
    county: CountyCode | None = None,
    industry: IndustryCode | None = None,
    class_: Annotated[ClassName | None, Query(alias="class", description="Of units.")] = None,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN, description="Of units.")] = None,
    state: Annotated[UnitState | None, Query(description="Of units.")] = None,
    bom: Annotated[
        bool,
        Query(description="Begin CSV with a byte order mark: Excel takes it for another encoding without."),
    ] = False,
) -> Response:
    """All rows, as a stream. Rows that change meanwhile may appear in the old or the new state. With
    `columns=id,class,enterprise,name` the answer is a file that an import takes.

    A name that a spreadsheet would run as a formula (it begins with =, +, - or @) is prefixed with an
    apostrophe in CSV; an import removes it."""
    known = _EXPORTED[book]
    names = known if columns is None else tuple(columns.split(","))
    if unknown := [name for name in names if name not in known]:
        raise Problem(422, f"columns: {unknown[0][:80]!r} is none of {book}; they have {', '.join(known)}.")
    if book == "enterprises" and (class_ or enterprise or state):
        raise Problem(
            422, "class, enterprise, state: filters of units; enterprises have city, county, industry."
        )
    filters = Filters(
        county, city, class_, enterprise, industry=industry, state=state, only=caller.enterprise
    )
    kind = "text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson"
    return StreamingResponse(
        _rows(runtime, book, filters, names, format, bom=bom),
        media_type=kind,
        headers={"Content-Disposition": f'attachment; filename="{book}.{format}"'},
    )


async def _rows(
    runtime: Runtime, book: str, filters: Filters, names: Sequence[str], format_: str, *, bom: bool
) -> AsyncIterator[bytes]:
    if format_ == "csv":
        yield (codecs.BOM_UTF8 if bom else b"") + (",".join(names) + "\n").encode()
    cursor: str | None = None
    encode = _csv if format_ == "csv" else _ndjson
    while True:

        def read(connection: Connection, cursor: str | None = cursor) -> tuple[bytes, str | None]:
            found = page(connection, BOOKS[book].table, filters, cursor, EXPORT_PAGE)
            return encode(found["items"], names), found["next"]

        lines, cursor = await runtime.database.read(read)
        if lines:
            yield lines
        if cursor is None:
            return


def _csv(items: Sequence[dict[str, Any]], names: Sequence[str]) -> bytes:
    out = io.StringIO()
    rows = ([guard(item[name]) if name == "name" else item[name] for name in names] for item in items)
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _ndjson(items: Sequence[dict[str, Any]], names: Sequence[str]) -> bytes:
    return msgspec.json.Encoder().encode_lines([{name: item[name] for name in names} for item in items])
