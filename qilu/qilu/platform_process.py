"""The platform of an embedded stack in a separate process, so that it and the gateway have a core each."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Self

import msgspec
from pydantic import SecretStr
from qilu_contract.errors import QiluError
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings

from qilu.children import die_with_parent, end, ended_by, last_words, size
from qilu.logfile import log_as_json, log_stream
from qilu.process import become_service, stop_signal, until_stopped
from qilu.store_door import StoreBehindDoor, StoreDoor

START_S = 60.0
STOP_S = 5.0


class _Order(msgspec.Struct):
    """Message to the process on stdin, including secrets, which must not be in the environment or in
    arguments."""

    settings: dict[str, Any]
    store_url: str
    store_key: str


class PlatformProcess:
    """The platform's process, inside `async with`; has the interface of PlatformService."""

    def __init__(self, settings: Settings, door: StoreDoor, log: Path) -> None:
        self._settings, self._door, self._log = settings, door, log
        self._process: asyncio.subprocess.Process
        self.url = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def __aenter__(self) -> Self:
        """Returns when it serves. Raises QiluError with its own words when it cannot."""
        settings = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self._settings
        }
        order = msgspec.json.encode(_Order(settings, self._door.url, self._door.key), enc_hook=str)
        began = size(self._log)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "qilu.platform_process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(order)
            self._process.stdin.write_eof()
            async with asyncio.timeout(START_S):
                self.url = (await self._process.stdout.readline()).decode().strip()
            if not self.url:
                code = await self._process.wait()
                raise QiluError(last_words(self._log, began) or f"The platform ended: {ended_by(code)}.")
        except BaseException:
            await end(self._process, STOP_S)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._process, STOP_S)

    async def wait(self) -> None:
        """Wait until it has ended, which it does only by a fault. Raises QiluError."""
        code = await self._process.wait()
        raise QiluError(f"The platform ended by itself ({ended_by(code)}): {self._log} says more.")


async def _serve(order: _Order) -> None:
    stopping = stop_signal()
    async with (
        StoreBehindDoor(order.store_url, order.store_key) as store,
        PlatformService(Settings(**order.settings), store) as service,
    ):
        print(service.url, flush=True)  # noqa: T201  # the stack waits for this line
        await until_stopped(service.wait(), stopping)


def main() -> None:
    become_service()
    log_as_json(log_stream(sys.stderr))
    try:
        asyncio.run(_serve(msgspec.json.decode(sys.stdin.buffer.read(), type=_Order)))
    except QiluError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
