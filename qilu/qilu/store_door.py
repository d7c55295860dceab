"""The door to an embedded store: DuckDB's file has one owner, the process of the gateway. What the platform
reads and writes from another process of the same stack goes through here, over HTTP on this machine.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx2
import msgspec
from qilu_common.http_server import HttpServer
from qilu_contract.errors import Rejected, Retryable, StoreError
from qilu_contract.storage import Point
from qilu_contract.store import Aggregate, PlatformStore, Row
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MAX_CONNECTIONS = 20
_TIMEOUT_S = 30.0
_CALLS: dict[str, tuple[Any, Any]] = {
    "write": (tuple[list[Point]], None),
    "latest": (tuple[str, dict[str, str]], Row | None),
    "series": (tuple[str, dict[str, str], list[str], int, int, int | None, Aggregate], list[Row]),
    "newest": (tuple[str, dict[str, str | int], int, int, int], list[Point]),
    "count_by": (tuple[str, str, int, int], dict[str, int]),
}
"""What can be asked: arguments and answer of each."""
_REFUSED, _WRONG, _AWAY = 422, 400, 503
"""How Rejected (as all else that waiting does not mend), ValueError and Retryable travel."""


class StoreDoor:
    """Serves a store inside `async with`, to those who have the key."""

    def __init__(self, store: PlatformStore) -> None:
        self._store = store
        self.key = secrets.token_urlsafe(32)
        app = Starlette(routes=[Route("/{name}", self._answer, methods=["POST"])])
        self._server = HttpServer(app, "127.0.0.1", 0, MAX_CONNECTIONS)

    @property
    def url(self) -> str:
        return self._server.url

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._server.__aexit__(*error)

    async def _answer(self, request: Request) -> Response:
        shown = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(shown, f"Bearer {self.key}".encode()):
            return Response(status_code=401)
        name = request.path_params["name"]
        if name not in _CALLS:
            return Response(status_code=404)
        try:
            arguments = msgspec.msgpack.decode(await request.body(), type=_CALLS[name][0])
            found = await getattr(self._store, name)(*arguments)
        except Retryable as error:
            return Response(str(error), _AWAY)
        except StoreError as error:
            return Response(str(error), _REFUSED)
        except ValueError as error:
            return Response(str(error), _WRONG)
        return Response(msgspec.msgpack.encode(found))


class StoreBehindDoor:
    """The same store, from another process. Opened by `async with`; raises as the store does, and Retryable
    while the door is shut."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def write(self, points: Sequence[Point]) -> None:
        await self._call("write", points)

    async def latest(self, measurement: str, tags: Mapping[str, str]) -> Row | None:
        found: Row | None = await self._call("latest", measurement, tags)
        return found

    async def series(
        self,
        measurement: str,
        tags: Mapping[str, str],
        fields: Sequence[str],
        start_ms: int,
        end_ms: int,
        every_ms: int | None = None,
        aggregate: Aggregate = "mean",
    ) -> list[Row]:
        found: list[Row] = await self._call(
            "series", measurement, tags, fields, start_ms, end_ms, every_ms, aggregate
        )
        return found

    async def newest(
        self, measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
    ) -> list[Point]:
        found: list[Point] = await self._call("newest", measurement, having, start_ms, end_ms, limit)
        return found

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        found: dict[str, int] = await self._call("count_by", measurement, tag, start_ms, end_ms)
        return found

    async def _call(self, name: str, *arguments: object) -> Any:
        try:
            answer = await self._http.post(f"/{name}", content=msgspec.msgpack.encode(arguments))
        except httpx2.HTTPError as error:
            raise Retryable(f"the stack's store does not answer: {error or type(error).__name__}") from error
        if answer.status_code == _WRONG:
            raise ValueError(answer.text)
        if answer.status_code == _REFUSED:
            raise Rejected(answer.text)
        if not answer.is_success:
            raise Retryable(answer.text or f"the stack's store answers {answer.status_code}")
        return msgspec.msgpack.decode(answer.content, type=_CALLS[name][1])
