"""Scenarios of the programme: the shipped ones are valid; an error names its line and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
from qilu_contract.errors import ConfigError
from qilu_programme.scenario import LEVELS, load_scenario, parse_scenario, shipped

CHANGED = """\
extends: default
name: mine
hazard: 0.9
shares:
  county: 0.2
pools:
  city: {2017: 0, 2018: 1, 2019: 2, 2020: 3, 2021: 4, 2022: 5}
more_centres:
  - {county: "371721", opens: "2020-01"}
"""


def test_what_ships_can_be_read() -> None:
    assert set(shipped()) == {
        "default",
        "county-share-cut",
        "guangdong-rules",
        "guizhou-second-voucher",
        "west-centres",
        "slow",
    }
    assert all(load_scenario(name).name == name for name in shipped())
    assert len(load_scenario().centres) == 30
    assert len(load_scenario("west-centres").centres) == 40


def test_a_scenario_that_extends_the_default_gives_only_what_differs() -> None:
    default, mine = load_scenario(), parse_scenario(CHANGED, "mine.yaml")
    assert (mine.hazard, mine.seed, mine.set) == (0.9, default.seed, default.set)
    assert mine.shares == {"province": 0.1, "city": 0.1, "county": 0.2}
    assert list(mine.pools["city"].values()) == [0, 1, 2, 3, 4, 5]
    assert mine.pools["county"] == default.pools["county"]
    assert mine.centres[:-1] == default.centres
    assert mine.centres[-1].county == "371721"
    assert set(mine.caps) == set(LEVELS)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("hazard: 0.9", "hasard: 0.9", 3, "has no 'hasard': use one of extends, name"),
        ("hazard: 0.9", "hazard: much", 3, "'hazard' must be a number from 0 to 10, not 'much'"),
        ("hazard: 0.9", "hazard: .nan", 3, "'hazard' must be a number"),
        ("hazard: 0.9", "hazard: 0.9\nset: m900k", 4, "'set' must be one of m350k, m500k, m800k"),
        ("hazard: 0.9", "hazard: 0.9\nseed: -1", 4, "'seed' must be a whole number from 0"),
        ("hazard: 0.9", "hazard: 0.9\nhazard: 1", 4, "given twice"),
        ("county: 0.2", "county: 0.7", 5, "'shares: county' must be a number from 0 to 0.6"),
        ("county: 0.2", "town: 0.2", 5, "'shares' has no 'town': use one of province, city, county"),
        ("  county: 0.2", "  county: 0.6\n  city: 0.2", 5, "more than 0.8 of the price"),
        ("2017: 0, ", "", 7, "lacks 2017: give a value for each"),
        ("2017: 0", "2016: 0", 7, "has no '2016'"),
        ("2018: 1", "2018: 1.5", 7, "'pools: city: 2018' must be a whole number"),
        ("371721", "371799", 9, "'371799' is not a county of Shandong"),
        ("371721", "371771", 9, "is not a county"),  # a development zone
        ("2020-01", "2023-01", 9, "'opens' must be a month from 2017-10 to 2022-12"),
        (', opens: "2020-01"', "", 9, "lacks opens"),
        ("extends: default", "extends: nothing", 1, "'extends' must be one of county-share-cut, default"),
        ("extends: default", "extends: slow", 1, "extends another scenario itself: extend default"),
        ("extends: default\n", "", 1, "'centres' is missing: add it, or 'extends: default'"),
        ("name: mine", "name: [mine", 3, "not YAML"),
        ("name: mine\n", "", 1, "'name' is missing"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_mend(old: str, new: str, line: int, says: str) -> None:
    assert old in CHANGED
    with pytest.raises(ConfigError) as told:
        parse_scenario(CHANGED.replace(old, new), "mine.yaml")
    sentence = str(told.value)
    assert sentence.startswith(f"mine.yaml, line {line}: "), sentence
    assert says in sentence


def test_a_file_that_is_not_there_is_told_with_what_ships(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give a file, or one of county-share-cut, default"):
        load_scenario(str(tmp_path / "no.yaml"))
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="save it as UTF-8"):
        load_scenario(tmp_path / "bad.yaml")
    with pytest.raises(ConfigError, match="line 1: the scenario is empty"):
        parse_scenario("", "x.yaml")
