"""NDJSON bodies: many things in one call, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection

from qilu_platform.models.bodies import (
    ContractIn,
    DisbursementIn,
    EnterpriseIn,
    ProviderIn,
    RecognitionIn,
    UnitIn,
)
from qilu_platform.models.faults import faults, sentence
from qilu_platform.registry.registration import BOOKS, Line, LineError, Outcome

MAX_LINES = 20_000

_In = EnterpriseIn | UnitIn | ProviderIn | ContractIn | RecognitionIn | DisbursementIn

_ADAPTERS: Mapping[str, TypeAdapter[_In]] = {
    "enterprises": TypeAdapter(EnterpriseIn),
    "units": TypeAdapter(UnitIn),
    "providers": TypeAdapter(ProviderIn),
    "contracts": TypeAdapter(ContractIn),
    "recognitions": TypeAdapter(RecognitionIn),
    "disbursements": TypeAdapter(DisbursementIn),
}


def parse_lines(book: str, body: bytes) -> tuple[list[Line], list[LineError]]:
    """The lines that are fit to be registered, numbered from 1, and what is wrong with the others; empty
    lines are left out."""
    check = _ADAPTERS[book].validate_json
    lines: list[Line] = []
    errors: list[LineError] = []
    for number, text in enumerate(body.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            row = check(text).row()
        except ValidationError as error:
            errors.append(LineError(number, sentence(faults(error.errors(include_url=False)))))
            continue
        if row["id"] is None:
            errors.append(
                LineError(number, "id: needed in bulk, so that a repeated call registers nothing twice")
            )
        else:
            lines.append((number, row))
    return lines, errors


def register_lines(connection: Connection, book: str, body: bytes) -> Outcome:
    """Parsing happens here as well, because here it runs in a thread."""
    lines, errors = parse_lines(book, body)
    outcome = BOOKS[book].register(connection, lines)
    outcome.errors.extend(errors)
    return outcome
