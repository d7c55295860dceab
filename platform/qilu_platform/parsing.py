"""Bytes of a CSV or NDJSON file as checked columns, a block of whole lines at a time.

A block whose lines are all good is checked by the column, in a handful of calls that run in C. Of a block
with a fault a few lines at a time are, and only what is left is looked at line by line, to say which line,
which column and why. One line is one record: a value may not hold a line break.
"""

from __future__ import annotations

import codecs
import csv
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import msgspec
from pydantic import TypeAdapter, ValidationError
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import BRANCHES, COUNTIES
from qilu_contract.wire.ids import is_id

from qilu_platform.models import EnterpriseIn, UnitIn, is_printable
from qilu_platform.problems import Problem, faults, sentence
from qilu_platform.registration import LineError

BLOCK = 128 * 1024
"""Bytes that are parsed and registered together: some 3,000 units, 20 ms of the database's one writer."""
FREE_EXPANSION, MAX_EXPANSION = 16 * 1024 * 1024, 200
"""Bytes that any gzip body may come to, and how many more for each of its own: files of units come to 20."""
MAX_LINE = 64 * 1024
"""Bytes; a longer line is no line of a registry."""
PIECE = 16
"""Lines of a block with a fault that are checked together: with one bad line in a hundred, six of seven times
there is none among them."""
_ID_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789-"
_MAX_NAME = 200

Value = str | None
Columns = Mapping[str, Sequence[Value]]


@dataclass(slots=True)
class Block:
    """Whole lines of a file, parsed: `numbers[n]` is the line that the n-th row of `columns` stood on."""

    size: int
    """Bytes."""
    lines: int
    numbers: Sequence[int] = ()
    columns: Columns = field(default_factory=dict)
    errors: list[LineError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Book:
    """What a file of one kind holds. `check` finds a fault in columns without saying which."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    adapter: TypeAdapter[Any]
    line: type[msgspec.Struct]
    check: Callable[[Columns], bool]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.needed + self.optional


class _UnitLine(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    class_: str = msgspec.field(name="class")
    enterprise: str
    name: str | None = None


class _EnterpriseLine(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    name: str
    county: str
    industry: str
    uscc: str | None = None


def _good_ids(values: Sequence[Any]) -> bool:
    joined = "".join(values)
    if not joined.isascii() or joined.encode().translate(None, _ID_BYTES):
        return False
    lengths = set(map(len, values))
    return (
        min(lengths) >= 1
        and max(lengths) <= 32
        and len(set(values)) == len(values)
        and not min(values).startswith("-")  # a hyphen sorts before all others
    )


def _good_names(values: Sequence[Value]) -> bool:
    names = [name for name in values if name is not None]
    if not names:
        return True
    return (
        is_printable("".join(names))
        and max(map(len, names)) <= _MAX_NAME
        and min(map(len, names)) >= 1
        and list(map(str.strip, names)) == names
    )


def _good_units(columns: Columns) -> bool:
    return (
        CATALOGUE.keys() >= set(columns["class"])
        and _good_ids(columns["id"])
        and all(map(is_id, set(map(str, columns["enterprise"]))))
        and _good_names(columns["name"])
    )


def _good_enterprises(columns: Columns) -> bool:
    return (
        COUNTIES.keys() >= set(columns["county"])
        and BRANCHES.keys() >= set(columns["industry"])
        and _good_ids(columns["id"])
        and None not in columns["name"]
        and _good_names(columns["name"])
        # Each code is another one: those of an enterprise file are checked line by line.
        and not any(columns["uscc"])
    )


BOOKS: Final[Mapping[str, Book]] = {
    "enterprises": Book(
        ("id", "name", "county", "industry"),
        ("uscc",),
        TypeAdapter(EnterpriseIn),
        _EnterpriseLine,
        _good_enterprises,
    ),
    "units": Book(("id", "class", "enterprise"), ("name",), TypeAdapter(UnitIn), _UnitLine, _good_units),
}


class WrongFile(Problem):
    """422: what arrives is no such file, and would be none if it were sent again."""

    def __init__(self, detail: str) -> None:
        super().__init__(422, detail)


class Splitter:
    """Cuts a stream of bytes, perhaps gzip, into blocks that end with a line; the first is made of what comes
    first, so that no wrong file waits for a whole block. Raises Problem 422 for a stream that is not what it
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
            raise Problem(
                422, "The body is not gzip, or damaged: leave out `Content-Encoding`, or send it anew."
            ) from error
        left = self._inflate.unconsumed_tail or self._inflate.unused_data
        self._kept += piece
        self._packed += len(data) - len(left)
        self._unpacked += len(piece)
        if self._unpacked > FREE_EXPANSION + MAX_EXPANSION * self._packed:
            raise Problem(
                422,
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
                raise Problem(
                    422, f"A line is longer than {BLOCK} bytes: is it a file of lines that end with \\n?"
                )
            self._least = BLOCK
            yield bytes(self._kept[:end])
            del self._kept[:end]

    def finish(self, *, complete: bool) -> Iterator[bytes]:
        """What is left. A stream that was cut off leaves out its last line, which may be half of one."""
        if complete and self._inflate is not None and not self._inflate.eof:
            raise Problem(422, "The gzip body ends too early: send it anew, from the job's offset.")
        yield from self._cut()
        end = len(self._kept) if complete else self._kept.rfind(b"\n") + 1
        if end:
            yield bytes(self._kept[:end])
        self._kept.clear()


_FORMULA = re.compile(r"'*[=+\-@]")


def guard(name: str | None) -> str | None:
    """A name as CSV shows it: one that a spreadsheet would run as a formula stands after an apostrophe."""
    return f"'{name}" if name and _FORMULA.match(name) else name


def unguard(name: Value) -> Value:
    """What `guard` was given."""
    return name[1:] if name and name[0] == "'" and _FORMULA.match(name) else name


def read_header(book: str, block: bytes) -> tuple[list[str], int]:
    """The columns of a CSV file, and how many bytes its first line has. Raises WrongFile when it is not a
    file of that kind."""
    line, newline, _ = block.partition(b"\n")
    text = line.removeprefix(codecs.BOM_UTF8).decode().rstrip("\r")
    try:
        names = [name.strip() for name in next(csv.reader([text]), [])]
    except csv.Error as error:
        raise WrongFile(f"This is no CSV file of {book}: its first line is not CSV ({error}).") from error
    known = BOOKS[book].columns
    form = f"the first line names the columns {', '.join(known)} (optional: {BOOKS[book].optional[0]})"
    unknown = [name for name in names if name not in known]
    missing = [name for name in BOOKS[book].needed if name not in names]
    if unknown or missing or len(set(names)) != len(names):
        trouble = (
            f"column {unknown[0][:40]!r} is not known"
            if unknown
            else f"column {missing[0]!r} is missing"
            if missing
            else "a column is named twice"
        )
        raise WrongFile(f"This is no CSV file of {book}: {trouble}; {form}, separated by commas.")
    return names, len(line) + len(newline)


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


def parse(book: str, names: Sequence[str] | None, block: bytes, first_line: int) -> Block:
    """Whole lines of a file, the first numbered `first_line`; CSV with the columns `names`, else NDJSON.
    Never raises: what is wrong is told by line."""
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if not block.strip():
        return Block(len(block), lines)
    columns = _columns(book, names, block, lines)
    if columns is not None:
        return Block(len(block), lines, range(first_line, first_line + lines), columns)
    taken: dict[str, list[Value]] = {name: [] for name in BOOKS[book].columns}
    numbers: list[int] = []
    errors: list[LineError] = []
    each = block.removesuffix(b"\n").split(b"\n")
    for place in range(0, len(each), PIECE):
        piece, number = each[place : place + PIECE], first_line + place
        if not any(map(bytes.strip, piece)):
            continue
        columns = _columns(book, names, b"\n".join(piece), len(piece))
        if columns is not None:
            numbers += range(number, number + len(piece))
            for name, values in taken.items():
                values += columns[name]
            continue
        for at, line in enumerate(piece, start=number):
            if not line.strip():
                continue
            row = _parse_line(book, names, line.removesuffix(b"\r"), at)
            if isinstance(row, LineError):
                errors.append(row)
                continue
            numbers.append(at)
            for name, values in taken.items():
                values.append(row[name])
    return Block(len(block), lines, numbers, taken, errors)


def _columns(book: str, names: Sequence[str] | None, block: bytes, lines: int) -> Columns | None:
    """The columns of lines that are all good; None if they are not, or if it takes a closer look to say."""
    columns = _fast_json(book, block) if names is None else _fast_csv(book, names, block, lines)
    if columns is None or len(columns["id"]) != lines or not BOOKS[book].check(columns):
        return None
    return columns


def _fast_json(book: str, block: bytes) -> Columns | None:
    line = BOOKS[book].line
    try:
        rows: list[Any] = msgspec.json.Decoder(line).decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not rows:
        return None
    return {each.encode_name: list(map(attrgetter(each.name), rows)) for each in msgspec.structs.fields(line)}


def _fast_csv(book: str, names: Sequence[str], block: bytes, lines: int) -> Columns | None:
    try:
        text = block.decode()
    except UnicodeDecodeError:
        return None
    text = text.replace("\r\n", "\n") if "\r" in text else text
    text = text.removesuffix("\n")
    width = len(names)
    if '"' in text:
        each = text.split("\n")
        try:
            rows = list(csv.reader(each, strict=True))
        except csv.Error:
            return None
        # A quote that is not closed makes one record of several lines.
        if len(rows) != lines or set(map(len, rows)) != {width}:
            return None
        values: list[Sequence[Value]] = list(zip(*rows, strict=True))
    else:
        each = text.split("\n")
        if {line.count(",") for line in each} != {width - 1}:
            return None
        flat = text.replace("\n", ",").split(",")
        values = [flat[place::width] for place in range(width)]
    columns = dict(zip(names, values, strict=True))
    if "'" in text and "name" in columns:
        columns["name"] = list(map(unguard, columns["name"]))
    for name in BOOKS[book].optional:
        column = columns.get(name)
        if column is None:
            columns[name] = [None] * lines
        elif "" in column:
            columns[name] = [value or None for value in column]
    return columns


def _parse_line(
    book: str, names: Sequence[str] | None, line: bytes, number: int
) -> Mapping[str, Value] | LineError:
    if len(line) > MAX_LINE:
        return LineError(number, f"longer than {MAX_LINE} bytes")
    try:
        if names is None:
            row = BOOKS[book].adapter.validate_json(line).row()
        else:
            given = next(csv.reader([line.decode()], strict=True))
            if len(given) != len(names):
                return LineError(number, f"has {len(given)} values, not {len(names)}: {', '.join(names)}")
            optional = BOOKS[book].optional
            content = {
                name: value for name, value in zip(names, given, strict=True) if value or name not in optional
            }
            if "name" in content:
                content["name"] = unguard(content["name"]) or ""
            row = BOOKS[book].adapter.validate_python(content).row()
    except UnicodeDecodeError as error:
        return LineError(number, f"not UTF-8, from byte {error.start}")
    except csv.Error as error:
        return LineError(number, f"not CSV: {error}; a value may not hold a line break")
    except ValidationError as error:
        told = faults(error.errors(include_url=False))
        where = told[0]["where"]
        return LineError(number, sentence(told), column=None if where == "body" else where)
    if row["id"] is None:
        return LineError(number, "id: needed, so that a repeated import registers nothing twice", column="id")
    checked: Mapping[str, Value] = row
    return checked
