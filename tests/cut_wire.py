"""A wire between two programs that can be cut, or hold back what was sent: a small TCP proxy."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Wire:
    """Listens on loopback and passes everything on to `port`, from a separate thread."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._whole = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._heard = asyncio.Event()
        self._heard.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._listening.wait()

    def cut(self) -> None:
        """Every connection breaks, and no new one is made."""
        self._call(self._cut)

    def hold(self) -> None:
        """Connections stay open, and nothing passes."""
        self._call(self._flows.clear)

    def mute(self) -> None:
        """Hold back what the client sends; what is sent to it passes."""
        self._call(self._heard.clear)

    def mend(self) -> None:
        self._call(self._mend)

    def close(self) -> None:
        self._call(self._cut)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _call(self, work: object) -> None:
        async def do() -> None:
            work()  # type: ignore[operator]

        asyncio.run_coroutine_threadsafe(do(), self._loop).result(10)

    def _cut(self) -> None:
        self._whole = False
        self._flows.set()
        self._heard.set()
        for writer in list(self._writers):
            writer.transport.abort()

    def _mend(self) -> None:
        self._whole = True
        self._flows.set()
        self._heard.set()

    def _run(self) -> None:
        async def listen() -> None:
            self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
            self._listening.set()

        self._loop.run_until_complete(listen())
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._whole:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._writers |= ends
        try:
            ways = ((reader, back, self._heard), (there, writer, self._flows))
            passing = [asyncio.ensure_future(self._pass(*way)) for way in ways]
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            for task in passing:
                task.cancel()
            await asyncio.gather(*passing, return_exceptions=True)
        finally:
            self._writers -= ends
            for end in ends:
                end.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, open_: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                await self._flows.wait()
                await open_.wait()
                writer.write(chunk)
                await writer.drain()
