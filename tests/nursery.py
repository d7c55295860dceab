"""`qilu` commands as processes of their own that start at once: they are forked from one process that has
imported everything. So a test that kills a gateway twenty times waits for no imports, and hits it at work.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx

MOTHER = """
import json, os, random, signal, sys, traceback
import qilu.cli, qilu.verify, qilu_devices.run.runner, qilu_devices.scenario, qilu_gateway.service
import qilu_stores.influx.store, qilu_platform.service

def born(words, environment, log):
    with open(log, "ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(environment)
    random.seed()
    sys.argv = ["qilu", *words]
    try:
        qilu.cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)

for line in sys.stdin:
    wish = json.loads(line)
    if "poll" in wish:
        pid, status = os.waitpid(wish["poll"], os.WNOHANG)
        answer = os.waitstatus_to_exitcode(status) if pid else None
    else:
        answer = os.fork()
        if not answer:
            born(**wish)
    print(json.dumps(answer), flush=True)
"""


class Nursery:
    """Started by the first `start`; `close` ends it. Usable from several threads."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def _ask(self, wish: object) -> int | None:
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", MOTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(wish) + "\n")
            self._process.stdin.flush()
            answer: int | None = json.loads(self._process.stdout.readline())
        return answer

    def start(self, words: list[str], environment: dict[str, str], log: Path) -> Child:
        pid = self._ask({"words": words, "environment": environment, "log": str(log)})
        assert pid is not None
        return Child(self, pid)

    def poll(self, pid: int) -> int | None:
        """The exit code of a child that has ended (a signal's number, negative), else None. To be asked until
        it has."""
        return self._ask({"poll": pid})

    def close(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.communicate(timeout=30)


class Child:
    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self._code: int | None = None

    @property
    def code(self) -> int | None:
        """How it ended; None while it runs."""
        if self._code is None:
            self._code = self._nursery.poll(self.pid)
        return self._code

    def end(self, number: int = signal.SIGTERM, patience_s: float = 30.0) -> int:
        """Send the signal and wait; what does not end in time is killed."""
        deadline = time.monotonic() + patience_s
        if self.code is None:
            os.kill(self.pid, number)
        while self.code is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        return self.code


def gateway_figure(port: int, name: str) -> float:
    """A metric of the gateway with this endpoint; -1 while it does not answer, or does not know it."""
    with suppress(httpx.TransportError):
        for line in httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text.splitlines():
            if line.startswith((f"qilu_gateway_{name} ", f"qilu_gateway_{name}_total ")):
                return float(line.split()[1])
    return -1.0
