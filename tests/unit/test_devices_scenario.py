from pathlib import Path

import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES
from qilu_contract.errors import ConfigError
from qilu_devices.scenario import load_scenario, parse_scenario

GOOD = """\
name: plant
units: 10
seed: 3
classes:
  motor: 1
  boiler: 0.5
cities:
  370200: 1
"""


def test_the_default_scenario_has_every_class_and_city() -> None:
    scenario = load_scenario()
    assert set(scenario.classes) == set(CATALOGUE)
    assert set(scenario.cities) == set(CITIES)
    assert scenario.start_ms is None
    assert len(scenario.sha256) == 64


def test_a_good_scenario_is_read() -> None:
    scenario = parse_scenario(GOOD + 'start: "2018-01-01T00:00:00+08:00"\n', "x.yaml")
    assert (scenario.name, scenario.units, scenario.seed) == ("plant", 10, 3)
    assert scenario.classes == {"motor": 1.0, "boiler": 0.5}
    assert scenario.cities == {"370200": 1.0}
    assert scenario.start_ms == 1_514_736_000_000
    assert parse_scenario(GOOD + "start: 2018-01-01T00:00:00+08:00\n", "x").start_ms == scenario.start_ms


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("units: 10", "unitz: 10", 2, "has no 'unitz': use one of name, units"),
        ("units: 10", "units: -10", 2, "'units' must be a whole number from 1"),
        ("units: 10", "units: many", 2, "not 'many'"),
        ("units: 10", "units: 10.5", 2, "whole number"),
        ("units: 10", "units: true", 2, "whole number"),
        ("units: 10", "units: [10]", 2, "a single value is wanted"),
        ("units: 10", "units: 10\nunits: 11", 3, "given twice"),
        ("seed: 3", "seed: x", 3, "'seed' must be a whole number"),
        ("seed: 3", "seed: 3\nstart: yesterday", 4, "'start' must be a time with its zone"),
        ("seed: 3", "seed: 3\nstart: 2018-01-01T00:00:00", 4, "with its zone"),
        ("seed: 3", "seed: 3\nstart: 1999-01-01T00:00:00+08:00", 4, "before 2001-09-09"),
        ("  motor: 1", "  moter: 1", 5, "the class mix has no 'moter': use one of blast_furnace"),
        ("  boiler: 0.5", "  boiler: -0.5", 6, "weight of class 'boiler' must be a number of 0 or more"),
        ("  boiler: 0.5", "  boiler: .nan", 6, "number of 0 or more"),
        ("  boiler: 0.5", "  boiler: much", 6, "not 'much'"),
        ("  370200: 1", "  370299: 1", 8, "the city mix has no '370299'"),
        ("  370200: 1", "  370200: 0", 8, "all zero"),
        ("  motor: 1\n  boiler: 0.5", "  - motor", 5, "must be lines of 'key: value'"),
        ("name: plant\n", "", 1, "'name' is missing"),
        ("name: plant", "name: 7", 1, "'name' must be a text"),
        ("units: 10", "units: [10", 3, "not YAML"),
        ("units: 10", "units: 10: 11", 2, "not YAML"),
        ("units: 10", "\tunits: 10", 2, "not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_the_mend(old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse_scenario(GOOD.replace(old, new), "plant.yaml")
    assert str(caught.value).startswith(f"plant.yaml, line {line}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "just text\n", "- a\n- b\n", "\x00"])
def test_what_is_no_scenario_at_all_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"plant\.yaml, line 1: "):
        parse_scenario(text, "plant.yaml")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_scenario(tmp_path / "nowhere.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_scenario(binary)


def test_the_fingerprint_is_of_the_text() -> None:
    assert parse_scenario(GOOD, "a").sha256 == parse_scenario(GOOD, "b").sha256
    assert parse_scenario(GOOD, "a").sha256 != parse_scenario(GOOD + "# more\n", "a").sha256
