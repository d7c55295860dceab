"""Log streams that drop lines while the disk is full, instead of ending the program."""

from __future__ import annotations

import errno
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

import structlog

_FULL = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO))


def log_stream(stream: TextIO) -> TextIO:
    """Wrap a stream for structlog. Lines that do not fit on a full disk are lost; later ones are written."""
    return cast(TextIO, _LogStream(stream))


def log_as_json(stream: TextIO) -> None:
    """Have structlog print lines of JSON there."""
    _configure(structlog.processors.JSONRenderer(), stream)


def log_to_stderr() -> None:
    """Have structlog print to stderr: lines for people on a terminal, JSON elsewhere."""
    last: Any = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    _configure(last, log_stream(cast(TextIO, _Stderr())))


def _configure(last: Any, stream: TextIO) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )


class _Stderr(io.TextIOBase):
    """`sys.stderr` at the moment of writing: a progress bar on the terminal replaces it for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _LogStream:
    """The part of a stream that structlog uses."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with _unless_full():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with _unless_full():
            self._stream.flush()


@contextmanager
def log_file(path: Path) -> Iterator[TextIO]:
    """Appends to `path`, in a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = path.open("a", encoding="utf-8")
    try:
        yield log_stream(stream)
    finally:
        with suppress(OSError):
            stream.close()


@contextmanager
def _unless_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
