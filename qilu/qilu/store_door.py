"""HTTP access to an embedded store for the platform in another process of the same stack. DuckDB's file has
one owner, the process of the gateway, so the platform reads and writes through this local endpoint.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

import httpx2
import msgspec
import numpy as np
from qilu_common.http_server import HttpServer
from qilu_contract.columns import Columns, Series
from qilu_contract.errors import Rejected, Retryable, StoreError
from qilu_contract.storage import UNIT_TAGS, Point
from qilu_contract.store import Chunk, PlatformStore, Row, SeriesQuery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

MAX_CONNECTIONS = 20
_TIMEOUT_S = 30.0
_CALLS: dict[str, tuple[Any, Any]] = {
    "write": (tuple[list[Point]], None),
    "latest": (tuple[str, dict[str, str]], Row | None),
    "series": (tuple[SeriesQuery], list[Row]),
    "since": (tuple[str, dict[str, int], int], dict[str, list[Row]]),
    "newest": (tuple[str, dict[str, str | int], int, int, int], list[Point]),
    "count_by": (tuple[str, str, int, int], dict[str, int]),
}
"""The calls, with the types of arguments and answer."""
_REFUSED, _WRONG, _AWAY = 422, 400, 503
"""HTTP status codes for Rejected (and all other errors that a retry does not fix), ValueError and
Retryable."""


class StoreDoor:
    """Serves a store inside `async with`, to callers with the key."""

    def __init__(self, store: PlatformStore) -> None:
        self._store = store
        self.key = secrets.token_urlsafe(32)
        routes = [("/scan", self._scan), ("/{name}", self._answer)]
        app = Starlette(routes=[Route(path, answer, methods=["POST"]) for path, answer in routes])
        self._server = HttpServer(app, "127.0.0.1", 0, MAX_CONNECTIONS)

    @property
    def url(self) -> str:
        return self._server.url

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._server.__aexit__(*error)

    def _may(self, request: Request) -> bool:
        shown = request.headers.get("authorization", "").encode()
        return secrets.compare_digest(shown, f"Bearer {self.key}".encode())

    async def _scan(self, request: Request) -> Response:
        if not self._may(request):
            return Response(status_code=401)
        try:
            asked = msgspec.msgpack.decode(await request.body(), type=tuple[str, int, int])
            parts = _packed(self._store.scan(*asked))
            first = await anext(parts, b"")
        except Retryable as error:
            return Response(str(error), _AWAY)
        except (StoreError, ValueError) as error:
            return Response(str(error), _WRONG if isinstance(error, ValueError) else _REFUSED)
        return StreamingResponse(_following(first, parts))

    async def _answer(self, request: Request) -> Response:
        if not self._may(request):
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
    """Client of StoreDoor in another process, opened by `async with`. Raises the store's errors, and
    Retryable while the server is unavailable."""

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

    async def series(self, query: SeriesQuery) -> list[Row]:
        found: list[Row] = await self._call("series", query)
        return found

    async def since(self, measurement: str, starts: Mapping[str, int], end_ms: int) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = await self._call("since", measurement, starts, end_ms)
        return found

    async def newest(
        self, measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
    ) -> list[Point]:
        found: list[Point] = await self._call("newest", measurement, having, start_ms, end_ms, limit)
        return found

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        found: dict[str, int] = await self._call("count_by", measurement, tag, start_ms, end_ms)
        return found

    async def scan(self, measurement: str, start_ms: int, end_ms: int) -> AsyncIterator[Chunk]:
        asked = msgspec.msgpack.encode((measurement, start_ms, end_ms))
        try:
            async with self._http.stream("POST", "/scan", content=asked) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _error(answer)
                async for part in _parts(answer.aiter_bytes()):
                    yield _unpacked(msgspec.msgpack.decode(part, type=_Packed))
        except httpx2.HTTPError as error:
            raise Retryable(f"the stack's store does not answer: {error or type(error).__name__}") from error

    async def _call(self, name: str, *arguments: object) -> Any:
        try:
            answer = await self._http.post(f"/{name}", content=msgspec.msgpack.encode(arguments))
        except httpx2.HTTPError as error:
            raise Retryable(f"the stack's store does not answer: {error or type(error).__name__}") from error
        if not answer.is_success:
            raise _error(answer)
        return msgspec.msgpack.decode(answer.content, type=_CALLS[name][1])


def _error(answer: httpx2.Response) -> Exception:
    if answer.status_code == _WRONG:
        return ValueError(answer.text)
    if answer.status_code == _REFUSED:
        return Rejected(answer.text)
    return Retryable(answer.text or f"the stack's store answers {answer.status_code}")


class _PackedColumns(msgspec.Struct):
    """`values`: float64, row by row."""

    measurement: str
    tags: dict[str, list[str]]
    ts_ms: list[int]
    names: tuple[str, ...]
    values: bytes


class _Packed(msgspec.Struct):
    points: list[Point]
    columns: list[_PackedColumns]


async def _packed(chunks: AsyncIterator[Chunk]) -> AsyncIterator[bytes]:
    """Each chunk with its length before it, and an empty one at the end, so that truncation is detected."""
    async for chunk in chunks:
        columns = [
            _PackedColumns(
                each.measurement,
                {tag: each.series.tag(tag, each.rows).tolist() for tag in UNIT_TAGS},
                each.ts_ms.tolist(),
                each.names,
                each.values.tobytes(),
            )
            for each in chunk.columns
        ]
        body = msgspec.msgpack.encode(_Packed(chunk.points, columns))
        yield len(body).to_bytes(8, "big") + body
    yield bytes(8)


async def _following(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


async def _parts(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Split a stream of `_packed` into its parts. Raises Retryable when the stream is truncated."""
    held = bytearray()
    async for piece in stream:
        held += piece
        while len(held) >= 8:
            size = int.from_bytes(held[:8], "big")
            if not size:
                return
            if len(held) < 8 + size:
                break
            yield bytes(held[8 : 8 + size])
            del held[: 8 + size]
    raise Retryable("the stack's store went away while it was read")


def _unpacked(packed: _Packed) -> Chunk:
    columns = []
    for each in packed.columns:
        count = len(each.ts_ms)
        columns.append(
            Columns(
                each.measurement,
                Series.of(
                    each.measurement, {tag: np.array(each.tags[tag], dtype=object) for tag in UNIT_TAGS}
                ),
                np.arange(count, dtype=np.int32),
                np.array(each.ts_ms, dtype=np.int64),
                each.names,
                np.frombuffer(each.values).reshape(count, len(each.names)),
            )
        )
    return Chunk(packed.points, columns)
