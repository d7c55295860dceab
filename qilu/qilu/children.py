"""Child processes of the embedded stack: none outlives it, every wait has a timeout, and every exit is
reported with its reason."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from pathlib import Path

_TAIL_BYTES = 64 * 1024


def die_with_parent() -> None:
    """Runs in a child before its program: a killed stack leaves no broker behind (on Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


async def end(process: asyncio.subprocess.Process, within_s: float) -> None:
    """Terminate a child; kill it when it does not end in time."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def ended_by(code: int) -> str:
    """Describe an exit code: `killed by SIGKILL` or `exit code 3`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def size(log: Path) -> int:
    """Bytes in a log, for `last_words`; 0 if there is none."""
    try:
        return log.stat().st_size
    except OSError:
        return 0


def last_words(log: Path, since: int) -> str:
    """The last line that a child wrote into its log after the first `since` bytes, without the program's
    name before it; empty when it wrote nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, size(log) - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip().removeprefix("qilu: ") for line in reversed(lines) if line.strip()), "")
