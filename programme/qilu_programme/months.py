"""The programme's months, from October 2017 to December 2022, as whole numbers from 0."""

from __future__ import annotations

FIRST_YEAR, FIRST_MONTH = 2017, 10
MONTHS = 63
"""October 2017 to December 2022. Month 0 is the state at launch."""


def label(index: int) -> str:
    """`2017-10` for 0."""
    months = FIRST_YEAR * 12 + FIRST_MONTH - 1 + index
    return f"{months // 12}-{months % 12 + 1:02d}"


def year(index: int) -> int:
    return (FIRST_YEAR * 12 + FIRST_MONTH - 1 + index) // 12


def month_of_year(index: int) -> int:
    """1 for January."""
    return (FIRST_MONTH - 1 + index) % 12 + 1


def index_of(text: str) -> int:
    """The number of a month like `2020-10`. Raises ValueError for text that is not a month of the
    programme."""
    head, dash, tail = text.partition("-")
    if not (dash and head.isdecimal() and tail.isdecimal() and len(tail) == 2 and 1 <= int(tail) <= 12):
        raise ValueError(f"{text!r} is not a month")
    index = (int(head) - FIRST_YEAR) * 12 + int(tail) - FIRST_MONTH
    if not 0 <= index < MONTHS:
        raise ValueError(f"{text} is outside the programme")
    return index


LABELS: tuple[str, ...] = tuple(label(index) for index in range(MONTHS))
CHECKPOINT = index_of("2020-10")
YEARS: tuple[int, ...] = tuple(range(FIRST_YEAR, year(MONTHS - 1) + 1))
