"""Splits a stream of bytes into blocks of whole lines; other types of files are refused here."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator

from qilu_platform.errors import Invalid

BLOCK = 128 * 1024
"""Bytes that are parsed and registered together: some 3,000 units, 20 ms of the database's one writer."""
FREE_EXPANSION, MAX_EXPANSION = 16 * 1024 * 1024, 200
"""Maximum size of any expanded gzip body, and maximum expansion ratio beyond it: files of units reach 20."""


class WrongFile(Invalid):
    """The body is not a valid file, and a repetition would not be either."""


class Splitter:
    """Cuts a stream of bytes, perhaps gzip, into blocks that end with a line; the first is made of what comes
    first, so that no wrong file waits for a whole block. Raises Invalid for a stream that is not what it
    says, or a line without end."""

    def __init__(self, *, gzipped: bool) -> None:
        self._inflate = zlib.decompressobj(31) if gzipped else None
        self._kept = bytearray()
        self._least = 1
        """Bytes that a block is made of, or more."""
        self._packed = self._unpacked = 0
        """Bytes of gzip so far, and what they came to."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate is None:
                self._kept += data
                data = b""
            else:
                data = self._unzip(data)
            yield from self._cut()

    def _unzip(self, data: bytes) -> bytes:
        """Add what comes of the beginning of `data`, never more than a block; what is left of `data`."""
        assert self._inflate is not None
        try:
            if self._inflate.eof:  # gzip files may be joined end to end
                self._inflate = zlib.decompressobj(31)
            piece = self._inflate.decompress(data, BLOCK)
        except zlib.error as error:
            raise Invalid(
                "The body is not gzip, or damaged: leave out `Content-Encoding`, or send it again."
            ) from error
        left = self._inflate.unconsumed_tail or self._inflate.unused_data
        self._kept += piece
        self._packed += len(data) - len(left)
        self._unpacked += len(piece)
        if self._unpacked > FREE_EXPANSION + MAX_EXPANSION * self._packed:
            raise Invalid(
                f"The gzip body expands to more than {MAX_EXPANSION} times its size, as no registry does: "
                "send the file without gzip.",
            )
        return left

    def _cut(self) -> Iterator[bytes]:
        while len(self._kept) >= self._least:
            end = self._kept.rfind(b"\n", 0, BLOCK) + 1
            if not end:
                if len(self._kept) < BLOCK:
                    return
                check_kind(bytes(self._kept))
                raise Invalid(
                    f"A line is longer than {BLOCK} bytes: is it a file of lines that end with \\n?"
                )
            self._least = BLOCK
            yield bytes(self._kept[:end])
            del self._kept[:end]

    def finish(self, *, complete: bool) -> Iterator[bytes]:
        """What is left. A stream that was cut off leaves out its last line, which may be half of one."""
        if complete and self._inflate is not None and not self._inflate.eof:
            raise Invalid("The gzip body ends too early: send it again, from the job's offset.")
        yield from self._cut()
        end = len(self._kept) if complete else self._kept.rfind(b"\n") + 1
        if end:
            yield bytes(self._kept[:end])
        self._kept.clear()


_MAGIC = (
    (b"PK\x03\x04", "an Excel workbook (.xlsx) or another zip archive: save it as CSV UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls): save it as CSV UTF-8"),
    (b"\x1f\x8b", "gzip: send it with `Content-Encoding: gzip`"),
    (b"%PDF", "a PDF document: send the table as CSV UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16: convert it first, such as with `iconv -f UTF-16 -t UTF-8`"),
    (codecs.BOM_UTF16_BE, "UTF-16: convert it first, such as with `iconv -f UTF-16 -t UTF-8`"),
)
"""How other files begin, and what to do with them."""


def check_kind(begin: bytes) -> None:
    """Raise WrongFile if the beginning of a file is that of another kind of file, with the remedy for that
    kind."""
    for magic, remedy in _MAGIC:
        if begin.startswith(magic):
            raise WrongFile(f"The file is {remedy}.")
    if begin.lstrip().startswith(b"["):
        raise WrongFile(
            "The file is a JSON array: send one object a line (NDJSON), without the brackets and the commas "
            "between the objects."
        )
    start = begin[:4096]
    zeros = start.count(0)
    if zeros * 3 > len(start):
        # Text in UTF-16 without a mark: of an ASCII character one byte is zero.
        order = "LE" if start[1::2].count(0) * 2 > zeros else "BE"
        raise WrongFile(
            f"The file is UTF-16: convert it first, such as with `iconv -f UTF-16{order} -t UTF-8`."
        )
    if zeros:
        raise WrongFile("The file is not text: it holds NUL bytes. Send CSV or NDJSON in UTF-8.")
    if b"\r" in start and b"\n" not in start:
        raise WrongFile(
            "The file's lines end with CR alone: convert them first, such as with `tr '\\r' '\\n'`."
        )


def check_encoding(block: bytes, first_line: int) -> bool:
    """Whether a file's first line that is not plain ASCII is in this block; the file is UTF-8 then. Raises
    WrongFile when it is not. A stray byte further on makes its own line bad, and no more."""
    if block.isascii():
        return False
    for number, line in enumerate(block.split(b"\n"), start=first_line):
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(number) from error
            break
    return True


def _not_utf8(line: int) -> WrongFile:
    return WrongFile(
        f"The file is not UTF-8 (line {line}): convert it first, such as with `iconv -f GB18030 -t UTF-8`.",
    )
