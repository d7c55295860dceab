"""The HTTP server of platform and gateway, and clients that connect and then say nothing, little, or half."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from qilu_common import http_server
from qilu_common.http_server import HttpServer
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

HUNG_S = 60.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class App:
    """An application whose answers the test holds back."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.gone = asyncio.Event()
        self.asgi = Starlette(
            routes=[
                Route("/", self.at_once, methods=["GET", "POST"]),
                Route("/slow", self.slow),
                Route("/flood", self.flood),
            ]
        )

    async def at_once(self, request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:
            self.gone.set()
            raise

    async def slow(self, _: Request) -> Response:
        await self.go_on.wait()
        return PlainTextResponse("done")

    async def flood(self, _: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)
            finally:
                self.gone.set()

        return StreamingResponse(parts())


@asynccontextmanager
async def serving(max_connections: int = 100) -> AsyncIterator[tuple[App, HttpServer]]:
    app = App()
    async with asyncio.timeout(HUNG_S), HttpServer(app.asgi, "127.0.0.1", 0, max_connections) as server:
        yield app, server
        app.go_on.set()


async def connect(server: HttpServer, said: bytes = b"") -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(said)
    return reader, writer


async def closed(connection: Connection) -> bool:
    """Wait for the end; whether it came without an answer."""
    try:
        return await connection[0].read() == b""
    except ConnectionError:
        return True
    finally:
        connection[1].close()


async def ask(server: HttpServer, path: str = "/") -> bytes:
    reader, writer = await connect(
        server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_client_that_says_nothing_little_or_half_is_dropped_and_one_that_waits_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HEAD_S", "BODY_S"):
        monkeypatch.setattr(http_server, name, 0.4)
    async with serving() as (app, server):
        waits = asyncio.create_task(ask(server, "/slow"))
        silent = await connect(server)
        again = await connect(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await again[0].readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200")
        again[1].write(b"GET / HT")  # its second request stays half
        drips = await connect(server, b"GET / HTTP/1.1\r\n")
        half = await connect(server, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")

        async def drip() -> None:
            while True:
                drips[1].write(b"X: y\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        for connection in (silent, drips, half, again):
            assert await closed(connection)
        dripping.cancel()
        await app.gone.wait()  # the handler of the half request was cancelled
        app.go_on.set()
        assert (await waits).endswith(b"done")


async def test_when_connections_run_out_those_that_wait_longest_make_room() -> None:
    async with serving(max_connections=10) as (app, server):
        waits = asyncio.create_task(ask(server, "/slow"))
        silent = [await connect(server) for _ in range(300)]
        for _ in range(20):
            assert (await ask(server)).startswith(b"HTTP/1.1 200")
        assert await closed(silent[0])
        app.go_on.set()
        assert (await waits).endswith(b"done")
        for _, writer in silent:
            writer.close()


async def test_when_all_connections_are_being_answered_the_next_is_told_to_come_later() -> None:
    async with serving(max_connections=3) as (app, server):
        waiting = [asyncio.create_task(ask(server, "/slow")) for _ in range(3)]
        while (await ask(server)).startswith(b"HTTP/1.1 200"):
            await asyncio.sleep(0.01)
        refused = await ask(server)
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 5" in refused
        app.go_on.set()
        assert all(answer.endswith(b"done") for answer in await asyncio.gather(*waiting))
        assert (await ask(server)).startswith(b"HTTP/1.1 200")


POST = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n"


async def test_a_request_that_is_cut_off_at_the_stop_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_server, "STOP_S", 0.1)
    app = App()
    async with asyncio.timeout(HUNG_S):
        async with HttpServer(app.asgi, "127.0.0.1", 0, 10) as server:
            cut_off = await connect(server, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            at_once = await connect(server, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await at_once[0].readline()).startswith(b"HTTP/1.1 200")  # so the other has begun
            at_once[1].close()
        await closed(cut_off)
        cut_off[1].close()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"GET /", b"x" * 1000),
        (b"GET / HTTP/1.1\r\nHost: x\r\nLong: ", b"x" * 1000),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"Many: headers\r\n" * 50),
        (POST + b"0\r\nLong: ", b"x" * 1000),
        (POST + b"0\r\n", b"Many: trailers\r\n" * 50),
        (POST + b"5;extension=", b"x" * 1000),
    ],
)
async def test_what_never_becomes_a_request_is_refused_before_it_fills_memory(
    begin: bytes, more: bytes
) -> None:
    async with serving() as (_, server):
        reader, writer = await connect(server, begin)
        sent = 0
        try:
            while not reader.at_eof() and sent < 10 * http_server.MAX_HEAD:
                writer.write(more)
                await writer.drain()
                sent += len(more)
                await asyncio.sleep(0)
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
        except ConnectionError:  # closed while it still speaks
            pass
        assert sent < 10 * http_server.MAX_HEAD
        assert (await ask(server)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_requests_that_wait_for_one_another_are_few() -> None:
    one = b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving() as (app, server):
        some = await connect(server, one * http_server.MAX_PIPELINED)
        many = await connect(server, one * 2000)
        assert (await many[0].readuntil(b"\r\n")).startswith(b"HTTP/1.1 400")
        app.go_on.set()
        for _ in range(http_server.MAX_PIPELINED):
            await some[0].readuntil(b"done")
        for _, writer in (some, many):
            writer.close()


async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "UNREAD_S", 0.4)
    async with serving() as (app, server):
        reader, writer = await connect(server, b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.gone.wait()
        writer.close()
        del reader


NO_FILES = """
import asyncio, os, resource, socket, sys, time
from starlette.applications import Starlette
from qilu_common.http_server import HttpServer

async def main():
    clients = [socket.socket() for _ in range(30)]
    async with HttpServer(Starlette(), "127.0.0.1", 0, 10) as server:
        files = []
        while True:
            try:
                files.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        for client in clients:
            client.connect(("127.0.0.1", server.port))
        await asyncio.sleep(2.5)
        for file in files:
            os.close(file)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        print((await reader.readline()).decode().strip())
        writer.close()

resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
asyncio.run(main())
"""


def test_without_files_the_log_has_one_line_and_service_comes_back() -> None:
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", NO_FILES], capture_output=True, text=True, timeout=HUNG_S, check=True
    )
    *said, answer = done.stdout.splitlines()
    assert answer == "HTTP/1.1 404 Not Found"
    assert done.stderr == ""
    minutes = int((time.monotonic() - began_s) // 60) + 1
    assert 1 <= len(said) <= minutes, done.stdout
    assert "Too many open files" in said[0]
