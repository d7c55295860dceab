"""A platform in a process, as users start it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx


@contextlib.contextmanager
def served_platform(
    options: Sequence[str], folder: Path, port: int, environment: dict[str, str]
) -> Iterator[tuple[str, int]]:
    """`qilu platform run` with these options on a port of loopback: its address once it is ready, and its
    process id. Its log is in `folder`."""
    program = Path(sys.executable).parent / "qilu"
    command = [program, "platform", "run", "--port", str(port), *options]
    with (folder / "platform.log").open("ab") as log:
        process = subprocess.Popen(command, env=os.environ | environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}/readyz", trust_env=False).status_code == 200:
                    break
            assert process.poll() is None, (folder / "platform.log").read_text()
            time.sleep(0.05)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(60)
