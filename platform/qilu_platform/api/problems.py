"""Error responses: RFC 9457 `application/problem+json` with one sentence that says what is wrong, where, and
how to fix it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from qilu_contract.errors import StoreError
from sqlalchemy.exc import DatabaseError, DataError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException as StarletteHTTPException

from qilu_platform.database.faults import has_no_room, is_damaged
from qilu_platform.database.transactions import DatabaseBusy
from qilu_platform.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from qilu_platform.models.faults import faults, sentence

_STATUS: Mapping[type[Refused], int] = {NotFound: 404, Conflict: 409, Invalid: 422, Unavailable: 503}


class Problem(HTTPException):
    """Raised by a route; becomes the answer. `errors` names single faults of a longer body."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers) if headers else None)
        self.errors = errors


def problem_response(
    status: int,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = list(errors)
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    detail, errors = str(error.detail), None
    if isinstance(error, Problem):
        errors = error.errors
    elif error.status_code in (404, 405):  # the framework's own, which says nothing but the title
        detail = f"{request.method} {request.url.path[:200]} is not served here; see /openapi.json."
    elif error.status_code == 400:  # likewise: a body that cannot be decoded
        return problem_response(422, "The body is not JSON in UTF-8: see /openapi.json for an example.")
    return problem_response(error.status_code, detail, errors=errors, headers=error.headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = faults(error.errors())
    return problem_response(
        422,
        f"The request does not fit: {sentence(found[:5])}. /openapi.json shows an example.",
        errors=found[:100],
    )


async def _store_away(_request: Request, error: Exception) -> Response:
    return problem_response(
        503, f"The store of readings is unavailable: {error}", headers={"Retry-After": "5"}
    )


async def _database_away(_request: Request, error: Exception) -> Response:
    if has_no_room(error):
        return problem_response(
            503,
            "The disk of the registry's database is full: nothing was changed; try again later.",
            headers={"Retry-After": "10"},
        )
    return problem_response(
        503, "The registry's database is unavailable or busy; try again soon.", headers={"Retry-After": "2"}
    )


async def _database_damaged(_request: Request, error: Exception) -> Response:
    if not is_damaged(error):
        raise error
    return problem_response(
        503, "The file of the registry's database is damaged: its operator restores it from a backup."
    )


async def _refused(_request: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    return problem_response(status, str(error))


async def _not_storable(_request: Request, _error: Exception) -> Response:
    return problem_response(
        422, "The request holds a text or a number that the registry's database cannot take."
    )


_HANDLERS: Mapping[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    Refused: _refused,
    StarletteHTTPException: _http,
    RequestValidationError: _invalid,
    StoreError: _store_away,
    DataError: _not_storable,
    DatabaseError: _database_damaged,
    DatabaseBusy: _database_away,
    OperationalError: _database_away,
    PoolTimeout: _database_away,
}


def add_problem_handlers(app: FastAPI) -> None:
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
