"""Child processes of the embedded stack: none outlives it, none is waited for without end."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys


def die_with_parent() -> None:
    """Runs in a child before its program: a killed stack leaves no broker behind (on Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


async def end(process: asyncio.subprocess.Process, within_s: float) -> None:
    """Ask a child to end, and make it end when it does not."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
