"""Process setup of every service and simulation."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

MAX_FILES = 65_536
"""Maximum limit of open files; far above what our processes open. Some systems allow a billion, for which
libraries reserve memory."""


def become_service() -> None:
    """Restrict new files of this process and its children to their owner, and raise the limit of open files
    as far as the machine allows."""
    os.umask(0o077)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems allow less than they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def on_stop_signals(stop: Callable[[], None]) -> None:
    """Call `stop` in the running event loop on Ctrl-C, SIGTERM, and when the terminal is closed (SIGHUP,
    unless `nohup` has it ignored)."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)

    def hung_up() -> None:
        _leave_terminal()
        stop()

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, hung_up)


def stop_signal() -> asyncio.Event:
    """An event that SIGINT, SIGTERM and a closed terminal set."""
    stopping = asyncio.Event()
    on_stop_signals(stopping.set)
    return stopping


async def until_stopped(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> None:
    """Run a service until `stopping` is set, or until it ends by itself; raises what it raises."""
    served = asyncio.create_task(work, name="served")
    stop = asyncio.create_task(stopping.wait(), name="stop")
    await asyncio.wait((served, stop), return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if served.done():
        served.result()
    served.cancel()


def _leave_terminal() -> None:
    """Discard further output to a terminal: it may be closed, and printing to it would fail. Files and pipes
    are kept."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
    os.close(nowhere)
