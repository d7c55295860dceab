"""Supervision of a stack: parts that die or do not start, and a terminal that is closed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qilu.brokers import EmbeddedBroker
from qilu.keyring import Keyring
from qilu_contract.errors import ConfigError, QiluError

from qilu import brokers

QILU = Path(sys.executable).parent / "qilu"
PATIENCE_S = 90.0


class Up:
    """`qilu up` with 30 units in a separate folder; its output goes to a file."""

    def __init__(self, folder: Path, flags: list[str], **process: object) -> None:
        self.state = folder / "state of mine"  # whose path wants quoting
        self.output = folder / "out"
        command = [QILU, "up", "--state", self.state, "--units", "30", "--report", folder / "report.json"]
        with self.output.open("wb") as out:
            where = {"stdout": out, "stderr": out, "stdin": subprocess.DEVNULL} | process
            self.process = subprocess.Popen([*command, *flags], **where)  # type: ignore[call-overload]
        self.report = folder / "report.json"

    def wait_for(self, words: str) -> str:
        return wait_for(lambda: (text := self.output.read_text()) and words in text and text)

    def child(self, *words: str) -> int:
        """The process id of a child that has all these words in its command line."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        ).stdout
        found = [line for line in listed.splitlines() if all(word in line for word in words)]
        assert len(found) == 1, listed
        return int(found[0].split()[0])


def wait_for(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, "not reached"
        time.sleep(0.05)


@pytest.fixture
def ports(free_port: Callable[[], int]) -> list[str]:
    names = ("--port", "--mqtt-port", "--metrics-port")
    flags = [word for name in names for word in (name, str(free_port()))]
    return [*flags, "--mqtts", f"127.0.0.1:{free_port()}"]


@pytest.fixture
def start(tmp_path: Path, ports: list[str]) -> Iterator[Callable[..., Up]]:
    running: list[Up] = []

    def start(*flags: str, **process: object) -> Up:
        running.append(Up(tmp_path, [*ports, *flags], **process))
        return running[-1]

    yield start
    for up in running:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def stored(output: str) -> int:
    """Number of stored readings in the newest status line."""
    found = re.findall(r"stored ([\d,]+)", output)
    return int(found[-1].replace(",", "")) if found else 0


BROKERS = [("mosquitto", "mosquitto.conf"), ("builtin", "iotcore")]
"""Each with the process to kill; the second one in `make soak` alone."""


@pytest.mark.parametrize(("kind", "program"), BROKERS if os.environ.get("QILU_SOAK") == "1" else BROKERS[:1])
def test_a_killed_broker_is_started_again_and_killed_equipment_ends_the_stack_with_the_reason(
    start: Callable[..., Up], kind: str, program: str, mosquitto_program: str
) -> None:
    up = start("--broker", kind, "--speed", "10")
    wait_for(lambda: stored(up.output.read_text()) > 0)
    os.kill(up.child(program), signal.SIGKILL)
    text = up.wait_for("is started again")
    assert "killed by SIGKILL" in text
    before = stored(text)
    wait_for(lambda: stored(up.output.read_text()) > before)
    # Equipment is not started again, which would begin another run: the stack ends with the reason.
    os.kill(up.child("devices run"), signal.SIGKILL)
    assert up.process.wait(PATIENCE_S) == 1
    text = up.output.read_text()
    assert "The simulated equipment failed: killed by SIGKILL" in text
    assert "Traceback" not in text
    report = json.loads(up.report.read_text())
    assert "killed by SIGKILL" in report["failure"]
    # `stored` counts as far as the equipment's record goes, whose last second a SIGKILL takes away.
    assert report["taken"] > before
    assert report["stored"] > 0


def not_ignored() -> None:
    # Tests that run under nohup would hand its choice on, and the stack would keep to it.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def test_a_closed_terminal_stops_the_stack_as_sigterm_does(start: Callable[..., Up]) -> None:
    terminal, line = pty.openpty()
    up = start(
        "--broker",
        "builtin",
        stdin=line,
        stdout=line,
        stderr=line,
        start_new_session=True,
        preexec_fn=not_ignored,
    )
    os.close(line)
    shown = b""
    while not stored(re.sub(r"\x1b\[[0-9;]*m", "", shown.decode(errors="replace"))):
        shown += os.read(terminal, 65536)
    up.process.send_signal(signal.SIGHUP)
    os.close(terminal)
    assert up.process.wait(PATIENCE_S) == 0
    report = json.loads(up.report.read_text())
    assert (report["lost"], report["failure"]) == (0, None)
    assert report["stored"] > 0


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def test_the_reason_of_equipment_that_cannot_run_is_told_by_the_stack(start: Callable[..., Up]) -> None:
    # Connections for more enterprises than files may be opened.
    up = start("--broker", "builtin", "--units", "3000", preexec_fn=few_files)
    assert up.process.wait(PATIENCE_S) == 1
    last = up.output.read_text().strip().splitlines()[-1]
    assert re.search(r"needs \d+ open files, .* this process may have 256: raise the limit", last), last


def test_taken_ports_are_named_with_what_is_used_instead_and_a_folder_may_have_spaces(
    start: Callable[..., Up], ports: list[str], tmp_path: Path
) -> None:
    first = start("--broker", "builtin")
    first.wait_for("is up")
    (tmp_path / "other").mkdir()
    # And on a terminal that knows ASCII only.
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    second = Up(tmp_path / "other", [*ports, "--broker", "builtin", "--for", "1s"], env=plain)
    assert second.process.wait(PATIENCE_S) == 0, second.output.read_text()
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(PATIENCE_S) == 0, first.output.read_text()
    text = second.output.read_text(encoding="ascii")
    for port, what in ((ports[1], "platform"), (ports[3], "broker"), (ports[5], "metrics")):
        assert re.search(rf"port {port} was taken, using \d+ for the {what}", text), text
    # The first stack's variables, from a folder whose name has spaces.
    script = f'. "{first.state}/env" && echo "$QILU_API_KEY"'
    key = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert key == (first.state / "keys" / "admin.key").read_text().strip()


def idle(port: int, count: int) -> list[socket.socket]:
    connections = [socket.socket() for _ in range(count)]
    for connection in connections:
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", port))
    return connections


def test_idle_connections_silence_neither_platform_nor_gateway_and_what_is_kept_is_the_owners_alone(
    start: Callable[..., Up], ports: list[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        up = start("--broker", "builtin", preexec_fn=loose_and_limited)
        wait_for(lambda: stored(up.output.read_text()) > 0)
        platform, metrics = int(ports[1]), int(ports[5])
        connections = idle(platform, 1100) + idle(metrics, 1100)
        for port in (platform, metrics, platform, metrics):
            answer = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S, trust_env=False)
            assert answer.status_code == 200, answer.text
        before = stored(up.output.read_text())
        wait_for(lambda: stored(up.output.read_text()) > before)
        logs = sum(log.stat().st_size for log in [up.output, *(up.state / "log").iterdir()])
        assert logs < 100_000
        for connection in connections:
            connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for path in [up.state, *up.state.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path
    script = f'. "{up.state}/env" && exec "{QILU}" platform certificates issue my-works'
    refused = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=up.state.parent)
    assert refused.returncode == 1
    assert "takes no certificates" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (up.state.parent / "my-works.zip").exists()
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(PATIENCE_S) == 0


def loose_and_limited() -> None:
    """1,024 open files at most, and nothing kept from others by the shell's own habits."""
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


def fake_mosquitto(folder: Path, script: str) -> Path:
    """A program that says it is a recent Mosquitto, and does something else."""
    program = folder / "mosquitto"
    program.write_text(
        f"#!/bin/sh\n[ \"$1\" = -h ] && {{ echo 'mosquitto version 2.0.21'; exit; }}\n{script}\n"
    )
    program.chmod(0o755)
    return program


async def test_a_broker_that_never_answers_is_one_sentence_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    fake_mosquitto(tmp_path, f"echo $$ > {tmp_path}/pid\nexec sleep 60")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(brokers, "START_S", 1.0)
    keyring = Keyring(tmp_path / "keys")
    keyring.make()
    broker = EmbeddedBroker("mosquitto", free_port(), tmp_path / "home", keyring, tmp_path / "log", None)
    with pytest.raises(ConfigError, match="does not answer on 127"):
        async with broker:
            raise AssertionError("it answers")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_broker_that_ends_again_and_again_is_given_up_with_its_last_words(
    tmp_path: Path, free_port: Callable[[], int], mosquitto_program: str
) -> None:
    keyring = Keyring(tmp_path / "keys")
    keyring.make()
    told: list[str] = []
    home = tmp_path / "home"
    broker = EmbeddedBroker("builtin", free_port(), home, keyring, tmp_path / "log", None)
    broker.tell = told.append
    async with broker, asyncio.timeout(PATIENCE_S):
        giving_up = asyncio.create_task(broker.wait())
        killed = None
        while not giving_up.done():
            if broker.pid is not None and broker.pid != killed:
                killed = broker.pid
                os.kill(killed, signal.SIGKILL)
            await asyncio.sleep(0.02)
        with pytest.raises(QiluError, match="ended 6 times within 10 minutes, now killed by SIGKILL"):
            giving_up.result()
    assert len(told) == 5
