"""Shared by all routes: the runtime, the caller's identity, and the form of responses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Path, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from qilu_contract.security import SecurityKind
from qilu_contract.wire.ids import ID_PATTERN

from qilu_platform.api.problems import Problem
from qilu_platform.models.faults import MAX_SHOWN
from qilu_platform.models.fields import Role
from qilu_platform.registry import sessions
from qilu_platform.registry.keys import Caller, find_caller, find_ended
from qilu_platform.runtime import Runtime

_bearer = HTTPBearer(auto_error=False, description="A key of the platform: `Authorization: Bearer qilu_…`.")

CONSOLE_HEADER = "X-Qilu-Console"
"""Against forged requests: a browser sends it only for scripts of our own origin, since no other may call."""

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457: what is wrong, where, and how to fix it.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string", "description": "Meaning of the status."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for a person."},
        "errors": {
            "type": "array",
            "description": "Single faults of a longer body.",
            "items": {
                "type": "object",
                "properties": {"where": {"type": "string"}, "what": {"type": "string"}},
            },
        },
    },
}
"""The component `Problem` of the API's description (`description.py`)."""
_PROBLEM: dict[str, Any] = {
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
}
Responses = dict[int | str, dict[str, Any]]
"""By status, for the description of the API."""
INVALID: Responses = {
    422: _PROBLEM | {"description": "The request does not fit; the detail says where and why."}
}
AWAY: Responses = {503: _PROBLEM | {"description": "The database or the store is unavailable; try again."}}
PROBLEMS: Responses = {
    401: _PROBLEM | {"description": "No key, or not a valid one."},
    403: _PROBLEM | {"description": "The key's role does not allow this."},
    429: _PROBLEM | {"description": "The key asks too often; Retry-After says when to come again."},
    **INVALID,
    **AWAY,
}
NOT_FOUND: Responses = {404: _PROBLEM | {"description": "There is no such thing."}}
CONFLICT: Responses = {409: _PROBLEM | {"description": "Conflict with existing data; see the detail."}}
STREAM: Responses = {
    200: {
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
        "description": "Events, for as long as wanted.",
    }
}
TOO_LARGE: Responses = {413: _PROBLEM | {"description": "The body is too large."}}


def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def check_query(request: Request) -> None:
    """Refuse query parameters that the operation does not have: a misspelt filter would show everything."""
    if not request.query_params:
        return
    app: FastAPI = request.app
    # RabbitMQ's questions are not described.
    described = app.openapi()["paths"].get(request.scope["route"].path, {})
    parameters = described.get(request.method.lower(), {}).get("parameters", ())
    known = [each["name"] for each in parameters if each["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            remedy = f"there are {', '.join(known)}" if known else "there are none"
            where = request.url.path
            raise Problem(422, f"{name[:MAX_SHOWN]!r} is not a query parameter of {where}: {remedy}.")


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


def allow(*roles: Role) -> Callable[..., Awaitable[Caller]]:
    """A dependency: the caller, if the key's role is one of `roles` or admin."""

    async def check(
        runtime: RuntimeDep,
        request: Request,
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Caller:
        if given is None:
            caller = await _by_cookie(runtime, request)
        else:
            caller = await _by_key(runtime, given.credentials, _address(request))
        if wait_s := runtime.buckets.take(caller.key):
            _see(runtime, "rate_limit", caller, request)
            raise Problem(
                429,
                f"This key makes more than {runtime.settings.rate_per_s:g} requests a second: "
                f"wait {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )
        if caller.role not in (Role.ADMIN, *roles):
            wanted = ", ".join((Role.ADMIN, *roles))
            _see(runtime, "forbidden", caller, request)
            raise Problem(403, f"A key of role {caller.role} may not do this; it takes {wanted}.")
        return caller

    return check


# The callers of a route, by the key's role. A key of an enterprise sees and changes only what is its own.
Admin = Annotated[Caller, Depends(allow())]
Operator = Annotated[Caller, Depends(allow(Role.OPERATOR))]
Owner = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.ENTERPRISE))]
Fleet = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.FLEET))]
Gateway = Annotated[Caller, Depends(allow(Role.INGEST))]
Reader = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.VIEWER, Role.ENTERPRISE))]
ReaderOrFleet = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.VIEWER, Role.ENTERPRISE, Role.FLEET))]
Anybody = Annotated[Caller, Depends(allow(*Role))]
AnId = Annotated[str, Path(pattern=ID_PATTERN)]


def _see(runtime: Runtime, kind: SecurityKind, caller: Caller, request: Request) -> None:
    runtime.watch.see(kind, caller.enterprise, caller.key, f"{request.method} {request.url.path}")


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""


async def _by_key(runtime: Runtime, key: str, address: str) -> Caller:
    caller = await runtime.database.read(lambda connection: find_caller(connection, key))
    if caller is None:
        ended = await runtime.database.read(lambda connection: find_ended(connection, key))
        if ended is None:
            runtime.watch.see("unknown_key", None, address, "A request with a key that nobody has.")
        else:
            runtime.watch.see("revoked_key", ended.enterprise, ended.key, f"From {address}.")
        raise Problem(
            401,
            "The key is not known, or it was revoked.",
            headers={"WWW-Authenticate": 'Bearer realm="qilu", error="invalid_token"'},
        )
    return caller


async def _by_cookie(runtime: Runtime, request: Request) -> Caller:
    """A browser that signed in. Its changes carry a header that no page of another origin can send."""
    cookie = request.cookies.get(sessions.COOKIE, "")
    found = await runtime.database.read(lambda connection: sessions.find(connection, cookie))
    if found is None:
        raise Problem(
            401,
            "This needs a key: send `Authorization: Bearer <key>`, or sign in on the console.",
            headers={"WWW-Authenticate": 'Bearer realm="qilu"'},
        )
    if request.method not in ("GET", "HEAD") and CONSOLE_HEADER not in request.headers:
        raise Problem(403, f"A change by a browser's session needs the header {CONSOLE_HEADER}.")
    return found.caller


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON at msgspec's speed: models only describe answers, they do not check them again."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")
