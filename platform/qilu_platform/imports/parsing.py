"""Parses CSV or NDJSON into checked columns, one block of whole lines at a time.

A block whose lines are all good is checked by the column, in a handful of calls that run in C. Of a block
with a fault a few lines at a time are, and only what is left is looked at line by line, to say which line,
which column and why. One line is one record: a value may not hold a line break.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

import msgspec
from pydantic import TypeAdapter, ValidationError
from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.catalogue.places import BRANCHES, COUNTIES
from qilu_contract.wire.ids import is_id

from qilu_platform.imports.splitting import WrongFile
from qilu_platform.models.bodies import (
    Body,
    ContractIn,
    DisbursementIn,
    EnterpriseIn,
    ProviderIn,
    RecognitionIn,
    UnitIn,
)
from qilu_platform.models.faults import faults, sentence
from qilu_platform.models.fields import is_printable
from qilu_platform.registry.registration import Line, LineError

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
    """Whole lines of a file, parsed: `numbers[n]` is the line number of the n-th row of `columns`."""

    size: int
    """Bytes."""
    lines: int
    numbers: Sequence[int] = ()
    columns: Columns = field(default_factory=dict)
    errors: list[LineError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class LineFormat:
    """Format of lines of one kind. `line` and `check` process many together: `check` detects an error in
    columns without locating it."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    adapter: TypeAdapter[Any]
    line: type[msgspec.Struct] | None = None
    check: Callable[[Columns], bool] | None = None

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
        REGISTRABLE.keys() >= set(columns["class"])
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


def _line_format(body: type[Body]) -> LineFormat:
    """A format whose lines are always checked one at a time, because there are few."""
    fields = {field.alias or name: field.is_required() for name, field in body.model_fields.items()}
    needed = tuple(name for name, required in fields.items() if required or name == "id")
    optional = tuple(name for name in fields if name not in needed)
    return LineFormat(needed, optional, TypeAdapter(body))


LINE_FORMATS: Final[Mapping[str, LineFormat]] = {
    "enterprises": LineFormat(
        ("id", "name", "county", "industry"),
        ("uscc",),
        TypeAdapter(EnterpriseIn),
        _EnterpriseLine,
        _good_enterprises,
    ),
    "units": LineFormat(
        ("id", "class", "enterprise"), ("name",), TypeAdapter(UnitIn), _UnitLine, _good_units
    ),
    "providers": _line_format(ProviderIn),
    "contracts": _line_format(ContractIn),
    "recognitions": _line_format(RecognitionIn),
    "disbursements": _line_format(DisbursementIn),
}


_FORMULA = re.compile(r"'*[=+\-@]")


def guard(name: str | None) -> str | None:
    """A name in CSV: one that a spreadsheet would run as a formula is prefixed with an apostrophe."""
    return f"'{name}" if name and _FORMULA.match(name) else name


def unguard(name: Value) -> Value:
    """Reverse of `guard`."""
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
    known = LINE_FORMATS[book].columns
    form = f"the first line names the columns {', '.join(known)} (optional: {LINE_FORMATS[book].optional[0]})"
    unknown = [name for name in names if name not in known]
    missing = [name for name in LINE_FORMATS[book].needed if name not in names]
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


def parse(book: str, names: Sequence[str] | None, block: bytes, first_line: int) -> Block:
    """Whole lines of a file, the first numbered `first_line`; CSV with the columns `names`, else NDJSON.
    Never raises: errors are reported per line."""
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    if not block.strip():
        return Block(len(block), lines)
    columns = _columns(book, names, block, lines)
    if columns is not None:
        return Block(len(block), lines, range(first_line, first_line + lines), columns)
    taken: dict[str, list[Value]] = {name: [] for name in LINE_FORMATS[book].columns}
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
    line, check = LINE_FORMATS[book].line, LINE_FORMATS[book].check
    if line is None or check is None:
        return None
    columns = _fast_json(line, block) if names is None else _fast_csv(book, names, block, lines)
    if columns is None or len(columns["id"]) != lines or not check(columns):
        return None
    return columns


def _fast_json(line: type[msgspec.Struct], block: bytes) -> Columns | None:
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
    for name in LINE_FORMATS[book].optional:
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
            row = LINE_FORMATS[book].adapter.validate_json(line).row()
        else:
            cells = next(csv.reader([line.decode()], strict=True))
            if len(cells) != len(names):
                return LineError(number, f"has {len(cells)} values, not {len(names)}: {', '.join(names)}")
            optional = LINE_FORMATS[book].optional
            content = {
                name: value for name, value in zip(names, cells, strict=True) if value or name not in optional
            }
            if "name" in content:
                content["name"] = unguard(content["name"]) or ""
            row = LINE_FORMATS[book].adapter.validate_python(content).row()
    except UnicodeDecodeError as error:
        return LineError(number, f"not UTF-8, from byte {error.start}")
    except csv.Error as error:
        return LineError(number, f"not CSV: {error}; a value may not hold a line break")
    except ValidationError as error:
        mistakes = faults(error.errors(include_url=False))
        where = mistakes[0]["where"]
        return LineError(number, sentence(mistakes), column=None if where == "body" else where)
    if row["id"] is None:
        return LineError(number, "id: needed, so that what is sent twice is registered once", column="id")
    checked: Mapping[str, Value] = row
    return checked


def numbered_rows(numbers: Sequence[int], columns: Columns) -> list[Line]:
    """Columns as rows, each with the number of its line."""
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return list(zip(numbers, rows, strict=True))
