"""Reads files of an import in parts."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from qilu_contract.errors import ConfigError

_PART = 256 * 1024
_FILES = {".csv": "text/csv", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson"}

Progress = Callable[[int], None]
"""Called with how many bytes of the file were sent."""


def content_type(path: Path) -> str:
    """By the file's name; raises ConfigError for others than .csv, .ndjson, .jsonl, each perhaps with .gz."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix in (".xlsx", ".xls"):
        raise ConfigError(f"{path} is an Excel workbook: save it as CSV UTF-8, and give that file.")
    if suffix not in _FILES:
        raise ConfigError(f"{path} is neither .csv nor .ndjson (nor one of them with .gz): name it so.")
    return _FILES[suffix]


def file_parts(path: Path, offset: int, progress: Progress) -> Iterator[bytes]:
    """The file from `offset` on, which counts bytes before gzip. Raises ConfigError for damaged gzip."""
    with path.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            file.seek(offset)
            while part := file.read(_PART):
                yield part
                progress(raw.tell())
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ConfigError(
                f"{path} is damaged gzip ({error}): make it again; rows that were registered stay."
            ) from error
