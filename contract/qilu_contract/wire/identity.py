"""External identifiers: unified social credit codes of enterprises, and `88.` identifiers of units."""

from __future__ import annotations

from typing import NamedTuple

from qilu_contract.catalogue.places import city_of
from qilu_contract.wire.ids import is_id

USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""GB 32100-2015: digits and capitals without I, O, S, V and Z, each worth its place. N: checked against
codes in public use, not against the standard's text."""
USCC_LENGTH = 18
_VALUES = {character: value for value, character in enumerate(USCC_ALPHABET)}
_WEIGHTS = tuple(pow(3, place, 31) for place in range(USCC_LENGTH - 1))

ROOT = "88"
"""China's root node in the industrial-internet identifier system."""


def uscc_check_character(first: str) -> str:
    """The 18th character, from the 17 before it (all of the alphabet)."""
    total = sum(_VALUES[character] * weight for character, weight in zip(first, _WEIGHTS, strict=True))
    return USCC_ALPHABET[-total % 31]


def check_uscc(value: str) -> str:
    """Return `value` if it is a unified social credit code, else raise ValueError that says which character
    is wrong."""
    for place, character in enumerate(value[:USCC_LENGTH], start=1):
        if character not in _VALUES:
            raise ValueError(
                f"character {place} is {character!r}: a unified social credit code has digits and capitals "
                "without I, O, S, V and Z"
            )
    if len(value) != USCC_LENGTH:
        raise ValueError(f"has {len(value)} characters: a unified social credit code has {USCC_LENGTH}")
    right = uscc_check_character(value[:-1])
    if value[-1] != right:
        raise ValueError(
            f"character 18, the check character, is {value[-1]!r}, and the 17 before it make {right!r}: "
            "one of them is mistyped"
        )
    return value


class Identifier(NamedTuple):
    """The parts of `88.<secondary node>.<enterprise>/<suffix>`."""

    node: str
    enterprise: str
    unit: str


def identifier(county: str, enterprise: str, unit: str) -> str:
    """A unit's industrial-internet identifier: `88.370200.370202-e00007/370202-motor-0000123`.

    The secondary node is the city's (assumed: one node a city, under the city's code). Nothing stores it: it
    follows from what never changes.
    """
    return f"{ROOT}.{city_of(county)}.{enterprise}/{unit}"


def parse_identifier(text: str) -> Identifier:
    """The parts of an identifier; raises ValueError with a sentence. Whether a unit has it, only the registry
    knows."""
    prefix, slash, unit = text.partition("/")
    parts = prefix.split(".")
    if not slash or len(parts) != 3 or parts[0] != ROOT:
        raise ValueError(
            f"{text[:80]!r} is no identifier: write 88.<secondary node>.<enterprise>/<unit>, such as "
            "88.370200.370202-e00007/370202-motor-0000123"
        )
    if not is_id(parts[2]) or not is_id(unit):
        raise ValueError(
            f"{text[:80]!r} is no identifier: enterprise and unit have 1 to 32 of a-z, 0-9 and -"
        )
    return Identifier(parts[1], parts[2], unit)
