"""`qilu doctor`: checks this machine for the requirements of the embedded stack, and explains how to fix
problems."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from qilu.mosquitto import find_mosquitto

# A simulated edge node is a connection at both ends of a child process: 2,000 of them and some files.
_OPEN_FILES_WANTED = 4096
_DISK_WANTED_GB = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor: `bad` keeps the stack from starting, `note` is worth knowing."""

    verdict: Literal["good", "note", "bad"]
    what: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine(state: Path, ports: tuple[int, ...]) -> Iterator[Finding]:
    yield _python()
    yield from _packages()
    yield _broker()
    for port in ports:
        yield _port(port)
    yield _state(state)
    yield _open_files()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("good", f"Python {version}")


def _packages() -> Iterator[Finding]:
    needed = {
        "duckdb": "store",
        "fastapi": "platform",
        "iotcore": "pip-only broker",
    }
    missing = {name: role for name, role in needed.items() if importlib.util.find_spec(name) is None}
    for name, role in missing.items():
        yield Finding(
            "bad", f"{name} is not installed ({role})", "install clouds-in-qilu[stack], or run make setup"
        )
    if not missing:
        yield Finding("good", "all packages of the stack")


def _broker() -> Finding:
    found = find_mosquitto()
    if found is None:
        return Finding("note", "Mosquitto is not installed: the broker that came with pip is used")
    if found.flaw:
        return Finding("note", f"{found} {found.flaw}", "until then the broker that came with pip is used")
    return Finding("good", str(found))


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return Finding("note", f"port {port} is taken", "the stack picks another one and prints it")
    return Finding("good", f"port {port} is free")


def _state(state: Path) -> Finding:
    folder = next(parent for parent in (state.absolute(), *state.absolute().parents) if parent.exists())
    if not folder.is_dir():
        return Finding("bad", f"{folder} is not a directory", "choose another one with --state")
    if not os.access(folder, os.W_OK):
        return Finding("bad", f"{folder} cannot be written", "choose another directory with --state")
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < _DISK_WANTED_GB:
        return Finding(
            "bad",
            f"{free_gb:.1f} GB free for {state}",
            f"{_DISK_WANTED_GB} GB are wanted; choose another --state",
        )
    return Finding("good", f"{free_gb:.0f} GB free for {state}")


def _open_files() -> Finding:
    if sys.platform == "win32":
        return Finding("bad", "Windows", "use WSL, or the compose stack")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = hard if hard != resource.RLIM_INFINITY else _OPEN_FILES_WANTED
    if allowed < _OPEN_FILES_WANTED:
        return Finding(
            "note", f"at most {allowed} open files", "large fleets need more: raise it with ulimit -n"
        )
    return Finding("good", f"{soft} open files, can be raised as needed")
