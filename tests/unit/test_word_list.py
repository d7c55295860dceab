"""The word list finds what it lists, over line ends too, and leaves plain English alone."""

import pytest
import word_list


@pytest.mark.parametrize(
    "prose",
    [
        "An equipment class of one's own.",
        "Whoever runs a platform",
        "Who may be stored is in the table.",
        "What is left out and reported says nothing about the class.",
        "a packet that\nis none",
        "The list stands in the manifest.",
        "So often a batch may fail",
        "mend what the reason says",
        "the speed that it was told",
        "Units are registered by the block.",
        "0.7 µs a unit",
        "The command goes on by itself.",
        "held for ever",
        "computed anew",
        "while the store is away",
        "heard of in the last five minutes",
        "refused, for nobody can tell",
    ],
)
def test_a_listed_phrasing_is_found(prose: str) -> None:
    assert list(word_list.find(prose))


@pytest.mark.parametrize(
    "prose",
    [
        "**What would change it.** A store that repairs itself.",
        "What does Mosquitto 2.0.21 refuse? Packets above the limit.",
        "Standstill and stand-in are words; NCMD stands for node command.",
        "1,801,000 legal units go on cloud.",
        "Users who have a key may read it, for example the operator.",
        "A unit has its own clock and its own enterprise.",
    ],
)
def test_plain_english_is_left_alone(prose: str) -> None:
    assert not list(word_list.find(prose))


def test_a_finding_names_its_line() -> None:
    (found,) = word_list.find("# Title\n\nFirst line\nof a paragraph that is\nread for ever\n", first_line=10)
    assert found.line == 14
