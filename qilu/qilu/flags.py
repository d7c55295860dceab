"""Parsers for flags of all commands: durations, speeds, times, files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from qilu_common.private_files import private_folder
from qilu_contract.durations import duration_ms
from qilu_contract.errors import ConfigError
from qilu_contract.readings import MIN_TIME_MS

_RATES = {"day": 86_400.0, "week": 604_800.0, "month": 30.4375 * 86_400.0, "year": 365.25 * 86_400.0}


def duration_s(text: str) -> float:
    """`90s`, `5m`, `2h`, `30d` as seconds; raises ConfigError."""
    try:
        return duration_ms(text) / 1000
    except ValueError as error:
        raise ConfigError(str(error)) from error


def speed(text: str) -> float | None:
    """`1`, `60`, `1month/s` as simulated seconds per second, `max` as None: as fast as it goes; raises
    ConfigError."""
    if text == "max":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:(day|week|month|year)/s)?", text)
    value = float(found[1]) * _RATES.get(found[2] or "", 1.0) if found else 0.0
    if value <= 0:
        raise ConfigError(f"{text!r} is not a speed: write 1, 60, 1month/s or max.")
    return value


def share(text: str) -> float:
    """`1/1000` or `0.001` as a number above 0 and up to 1; raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(\d+))?", text)
    below = int(found[2] or 1) if found else 0
    value = float(found[1]) / below if found and below else 0.0
    if not 0 < value <= 1:
        raise ConfigError(f"{text!r} is no share: write 1/1000, 0.05 or 1.")
    return value


def time_ms(text: str) -> int:
    """`2022-06-01T00:00:00+08:00` (or `2022-06-01`: UTC) as milliseconds since 1970; raises ConfigError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a time: write 2022-06-01T08:00:00+08:00.") from error
    found_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if found_ms < MIN_TIME_MS:
        raise ConfigError(f"{text!r} lies before 2001-09-09: no gateway believes a time before that.")
    return found_ms


def shard(text: str) -> tuple[int, int]:
    """`2/7` as (2, 7): the second of seven slices; raises ConfigError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"--shard {text!r} is no slice: write 1/4 for the first of four.")
    return int(found[1]), int(found[2])


def new_file(path: Path | None, flag: str) -> None:
    """Check at the beginning that a file can be written at the end. Raises ConfigError."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{flag} {path}: there is no folder {folder}: make it first.")
    if path.is_dir():
        raise ConfigError(f"{flag} {path} is a folder: name a file in it.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"{flag} {path} cannot be written: permission denied.")


def state_folder(path: Path) -> None:
    """Make a service's folder, for its owner only. Raises ConfigError."""
    try:
        private_folder(path)
    except OSError as error:
        raise ConfigError(
            f"--state {path} cannot be used ({error.strerror}): choose another directory."
        ) from error


@contextmanager
def settings(prefix: str) -> Iterator[None]:
    """Context for reading a service's settings, which also come from variables that begin with `prefix`.
    Raises ConfigError for an invalid value."""
    from pydantic import ValidationError  # not every part has it installed

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"The setting {name} ({prefix}{name.upper()}) is {first['input']!r}: {first['msg']}."
        ) from error
