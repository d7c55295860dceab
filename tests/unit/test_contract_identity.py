"""Unified social credit codes and `88.` identifiers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract.wire.identity import (
    USCC_ALPHABET,
    check_uscc,
    identifier,
    parse_identifier,
    uscc_check_character,
)

# Enterprises print theirs on every invoice.
IN_USE = [
    "91370200264574251E",
    "91440300192189783K",
    "91110108551385082Q",
    "914403001922038216",
    "91330100799655058B",
]


def of(first: str) -> str:
    return first + uscc_check_character(first)


@pytest.mark.parametrize("code", [*IN_USE, of("91370200MA3C0AB12")])
def test_a_right_code_is_taken(code: str) -> None:
    assert check_uscc(code) == code


@given(st.text(USCC_ALPHABET, min_size=17, max_size=17), st.integers(0, 16), st.sampled_from(USCC_ALPHABET))
def test_one_wrong_character_is_always_noticed(first: str, place: int, other: str) -> None:
    code = of(first)
    check_uscc(code)
    wrong = code[:place] + other + code[place + 1 :]
    if wrong != code:
        with pytest.raises(ValueError, match="character 18, the check character"):
            check_uscc(wrong)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("91370200MI3C0AB12X", "character 10 is 'I'"),
        ("9137020", "has 7 characters"),
        ("", "has 0 characters"),
        ("91370200MA3C0AB12XX", "has 19 characters"),
        ("91370200ma3C0AB12X", "character 9 is 'm'"),
    ],
)
def test_a_wrong_code_is_told_which_character_is_wrong(code: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_uscc(code)


def test_an_identifier_says_what_it_was_made_of() -> None:
    text = identifier("370202", "370202-e00007", "370202-motor-0000123")
    assert text == "88.370200.370202-e00007/370202-motor-0000123"
    assert parse_identifier(text) == ("370200", "370202-e00007", "370202-motor-0000123")


@pytest.mark.parametrize("text", ["", "88.1.2", "86.1.e/u", "88.1/u", "88.1.e.f/u", "88.1.E/u", "88.1.e/U"])
def test_what_is_no_identifier_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(ValueError, match="is no identifier: "):
        parse_identifier(text)
