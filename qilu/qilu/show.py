"""`qilu programme run --live` with its own stack: the run in it, and after its end the console, on which
it can be started again."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import typer
from qilu_contract.errors import QiluError
from qilu_platform.database.carrying import carry_keys
from rich.console import Console

from qilu.children import end, ended_by
from qilu.live_report import disk_bytes, report_of
from qilu.process import stop_signal
from qilu.stack import Stack, attend
from qilu.stack_child import STOP_CHILD_S
from qilu.stack_config import Child, StackConfig


@dataclass(frozen=True, slots=True)
class Show:
    """A stack in which the programme is played. `words`: the command that plays a scenario; `ended` is called
    with the report of a run. Unless `leaves`, the stack serves on after the end, until it is stopped."""

    stack: StackConfig
    words: Callable[[str], list[str]]
    scenario: str
    leaves: bool
    ended: Callable[[dict[str, Any]], None]


def play_embedded(show: Show, console: Console) -> dict[str, Any]:
    """Start a stack and play the programme into it, again with another scenario whenever a viewer asks for
    that; returns the last run's report. Raises QiluError; exits with the player's exit code when the player
    has printed the error."""
    return asyncio.run(_embedded(show, console))


async def _embedded(show: Show, console: Console) -> dict[str, Any]:
    stopping = stop_signal()
    # Ignore a pause until a handler is set: it must neither end the player, which inherits this, nor stop
    # this process, which reports that the stack is up before the handler below is set.
    for number in (signal.SIGUSR1, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    config, scenario = show.stack, show.scenario
    while True:
        words = [*show.words(scenario), "--room", str(config.state)]
        child = Child("programme", words, role="admin", shown=True, afresh=False)
        visit = _Visit(replace(config, child=child), console, stopping)
        report = await visit.play(show)
        if visit.again is None:
            return report
        scenario = visit.again
        console.print(f"Starting again with the scenario {scenario} …")
        await asyncio.to_thread(begin_again, config.state)
        new = f"sqlite:///{config.state}/registry.sqlite"
        await carry_keys(f"sqlite:///{config.state / BEFORE}/registry.sqlite", new)
        # On the same port, so that the pages find it.
        config = replace(config, port=visit.port)
        stopping.clear()


class _Visit:
    """One run in one stack. `again` is the scenario that a viewer asked for, if any."""

    def __init__(self, config: StackConfig, console: Console, stopping: asyncio.Event) -> None:
        self._config, self._console, self._stopping = config, console, stopping
        self.again: str | None = None
        self.port = config.port

    async def play(self, show: Show) -> dict[str, Any]:
        async with (
            Stack(self._config, self._console) as stack,
            httpx2.AsyncClient(base_url=stack.platform.url, timeout=10, trust_env=False) as http,
        ):
            self.port = urlsplit(stack.platform.url).port or self.port

            def pause() -> None:
                if stack.child.process.returncode is None:
                    stack.child.process.send_signal(signal.SIGUSR1)

            async def look() -> None:
                with suppress(httpx2.HTTPError):  # the next look tells
                    answer = await http.get("/v1/programme/replay")
                    self.again = answer.json()["wanted"]["again"] if answer.is_success else None
                if self.again is not None:
                    self._stopping.set()

            asyncio.get_running_loop().add_signal_handler(signal.SIGTSTP, pause)
            await attend(stack, self._stopping, look)
            await self._end_player(stack)
            report = await report_of(stack, self._config.state)
            stays = not (show.leaves or self._stopping.is_set())
            if stays:
                show.ended(report)
                self._console.print(
                    f"The run is over. {stack.platform.url} shows how it ended, until Ctrl-C.",
                    highlight=False,
                    soft_wrap=True,
                )
                await attend(stack, self._stopping, look, child=False)
        report["disk_bytes"] = disk_bytes(self._config.state)
        if not stays:
            show.ended(report)
        return report

    async def _end_player(self, stack: Stack) -> None:
        """Raises QiluError, or exits as the player did, when it has failed."""
        process = stack.child.process
        if self._stopping.is_set():
            if self.again is None:
                self._console.print("Stopping …")
            await end(process, STOP_CHILD_S)
        elif (code := process.returncode) is not None and code < 0:
            raise QiluError(f"The player ended ({ended_by(code)}): the same command continues from there.")
        elif code:
            raise typer.Exit(code)


BEFORE = "before"
_OF_A_RUN = ("programme", "gateway", "broker", "registry.sqlite*", "readings.duckdb*")


def begin_again(state: Path) -> None:
    """Empty the directory of a stack that has ended, for another run: its data goes to the folder `before`,
    in place of what was there; keys and the certificate authority stay. Raises QiluError."""
    before = state / BEFORE
    try:
        shutil.rmtree(before, ignore_errors=True)
        before.mkdir(mode=0o700)
        for pattern in _OF_A_RUN:
            for path in state.glob(pattern):
                path.rename(before / path.name)
    except OSError as error:
        raise QiluError(f"{state} cannot be emptied for another run: {error.strerror}.") from error
