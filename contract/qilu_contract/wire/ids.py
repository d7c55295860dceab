"""Identifiers: `[a-z0-9-]{1,32}`, never reused, never changed. They are used unchanged in topics and tags."""

from __future__ import annotations

import re

ID_PATTERN = r"^[a-z0-9-]{1,32}$"
_ID = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_RESERVED = re.compile(r"[0-9]{6}-", re.ASCII)


def is_id(value: str) -> bool:
    return _ID.fullmatch(value) is not None


def check_id(value: str, what: str) -> str:
    """Return `value` if it is an identifier, else raise ValueError with a sentence about `what`."""
    if not is_id(value):
        raise ValueError(f"{what} {value[:40]!r} is not an id: use 1 to 32 of a-z, 0-9 and -")
    return value


def check_new_id(value: str, what: str) -> str:
    """Like `check_id`, for new ids: a leading hyphen would be parsed as an option on a command line. Existing
    ids stay valid."""
    if check_id(value, what).startswith("-"):
        raise ValueError(f"{what} {value!r} begins with a hyphen: begin an id with a letter or a digit")
    return value


def is_reserved(value: str) -> bool:
    """Whether an id begins like those that the platform makes: six digits and a hyphen."""
    return _RESERVED.match(value) is not None


def unit_id(county: str, class_name: str, number: int) -> str:
    """The id that we give to a unit: sorts by county, then class (`370202-blast-furnace-0000123`)."""
    return f"{id_prefix(county, class_name)}{number:07d}"


def id_prefix(county: str, class_name: str) -> str:
    """Prefix of generated ids of a county's units of a class."""
    return f"{county}-{class_name.replace('_', '-')}-"


def enterprise_id(county: str, number: int) -> str:
    """The id that we give to an enterprise, which is also its edge node's name (`370202-e00007`)."""
    return f"{county}-e{number:05d}"
