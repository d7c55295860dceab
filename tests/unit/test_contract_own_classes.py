"""Custom equipment classes: the shipped example is valid; an error names its line and the fix."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from qilu_contract.catalogue.classes import CATALOGUE, OWN
from qilu_contract.catalogue.equipment import DataSetForm, Part, TemplateForm
from qilu_contract.catalogue.own_classes import MAX_NAME, RESERVED, Follows, load_own_classes, parse_own_class
from qilu_contract.errors import ConfigError
from qilu_contract.storage import HOURLY, MEASUREMENTS
from qilu_contract.wire.ids import is_id, unit_id

KILN = Path(__file__).parents[2] / "docs" / "examples" / "kiln.yaml"
GOOD = """\
name: mill
title: Mill
signals:
  - name: load
    unit: kW
    range: [0, 100]
    resolution: 0.1
    interval: 10s
    value: {constant: [40, 60], noise: 0.5}
  - name: temp
    unit: degC
    range: [-20, 200]
    resolution: 0.1
    interval: 60s
    value: {constant: 20, follows: {signal: load, factor: 2, lag: 10m}}
  - name: turns
    unit: "1"
    type: int
    range: [0, 1000000]
    interval: 60s
    value: {counts: {signal: load, factor: 3}}
"""


def test_the_example_is_read() -> None:
    own = parse_own_class(KILN.read_text(encoding="utf-8"), "kiln.yaml", CATALOGUE)
    kiln = own.equipment
    assert (kiln.name, kiln.title, kiln.title_zh, kiln.base_interval_s) == (
        "kiln",
        "Cement kiln",
        "水泥回转窑",
        10,
    )
    assert {signal.type for signal in kiln.signals} == {"float", "int", "bool"}
    assert kiln.signal("burning_zone_temp").nominal == 25 + 5.6 * 250
    assert own.motions[1].follows == (Follows("feed", 5.6, 2400.0),)
    assert kiln.signal("energy_kWh").is_wide
    assert {signal.mark for signal in kiln.signals} == {"A"}
    parts = (Part("Power", "drive_power"), Part("Meter/Energy", "energy_kWh"))
    assert kiln.templates == (TemplateForm("Drive", "kiln_drive", parts),)
    columns = (Part("Temperature", "shell_temp"), Part("Bricks lost", "bricks_lost"))
    assert kiln.forms == (*kiln.templates, DataSetForm("Shell scanner", "scanned", columns))


def test_the_pages_example_is_read() -> None:
    text = (KILN.parents[1] / "own-classes.md").read_text(encoding="utf-8")
    own = parse_own_class(text.split("```yaml\n")[1].split("```")[0], "own-classes.md", CATALOGUE)
    assert [signal.name for signal in own.equipment.signals] == ["power", "bearing_temp", "energy_kWh"]


def test_a_signal_far_below_zero_travels_as_64_bits_as_well() -> None:
    text = GOOD.replace("[-20, 200]", "[-2000000, 200]")
    assert parse_own_class(text, "x").equipment.signal("temp").is_wide


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("name: mill", "name: Mill", 1, "'name' must be 1 to 17 of a-z, 0-9"),
        ("name: mill", "name: a_very_long_name_x", 1, "1 to 17"),
        ("name: mill", "name: mill_", 1, "1 to 17"),
        ("name: mill", "name: motor", 1, "the name 'motor' is taken: choose another one"),
        ("name: mill", "name: pipeline", 1, "the name 'pipeline' is taken"),
        ("name: mill", "name: motor_mill", 1, "cannot be distinguished from 'motor' in units' ids"),
        ("name: mill", "name: blast", 1, "cannot be distinguished from 'blast_furnace'"),
        ("title: Mill\n", "", 1, "a class lacks title: give a value"),
        ("title: Mill", "titel: Mill", 2, "a class has no 'titel': use one of name, title"),
        ("name: load", "name: unit", 4, "none of city, county"),
        ("name: load", "name: Time", 4, "none of city, county"),
        ("name: load", "name: 2nd", 4, "a signal's name is a letter"),
        ("name: temp", "name: Load", 10, "the signal 'Load' is there already"),
        ("    unit: kW\n", "", 4, "a signal lacks unit"),
        ("unit: kW", "unit: ''", 5, "'unit' must be a text of 1 to 32"),
        ("unit: kW", "unit: kW\n    type: real", 6, "'type' must be one of float, int, bool, not 'real'"),
        ("range: [0, 100]", "range: [100, 0]", 6, "the lower bound first"),
        ("range: [0, 100]", "range: 100", 6, "'range' must be a list of two numbers"),
        ("range: [0, 100]", "range: [0, 1, 2]", 6, "two numbers, like [0, 100]"),
        ("range: [0, 100]", "range: [0, much]", 6, "not 'much'"),
        ("range: [0, 100]", "range: [0, .inf]", 6, "must be a number"),
        ("resolution: 0.1\n", "resolution: 0.3\n", 7, "'resolution' must be one of 1, 0.1, 0.01"),
        ("type: int", "type: int\n    resolution: 0.1", 19, "'resolution' must be one of 1 for a int"),
        ("interval: 10s", "interval: 10 seconds", 8, "'interval' must be a duration like 90s, 10m"),
        ("interval: 10s", "interval: 1.5s", 8, "whole seconds, from 1s to 30d"),
        ("interval: 10s", "interval: 40s", 10, "'temp' must be a multiple of the class's shortest"),
        ("{constant: [40, 60], noise: 0.5}", "{}", 9, "'value' is empty"),
        ("{constant: [40, 60], noise: 0.5}", "50", 9, "'value' must be lines of 'key: value'"),
        ("{constant: [40, 60], noise: 0.5}", "{sine: 1}", 9, "'value' has no 'sine': use one of constant"),
        ("constant: [40, 60]", "constant: [60, 40]", 9, "a lower and a higher one"),
        ("noise: 0.5", "noise: -1", 9, "'noise' must be a number from 0"),
        ("noise: 0.5", "daily: {swing: 1, peak: 25h}", 9, "'peak' must be a time of day"),
        ("noise: 0.5", "walk: {sd: 1}", 9, "'walk' lacks memory"),
        ("noise: 0.5", "walk: {sd: 1, memory: 0s}", 9, "'memory' must be more than 0"),
        ("noise: 0.5", "follows: {signal: temp, factor: 1}", 9, "'temp' is no signal above this one"),
        ("signal: load, factor: 2", "signal: lood, factor: 2", 15, "no signal above this one: use one of"),
        ("counts: {", "noise: 1, counts: {", 21, "a counter has no other terms"),
        ("range: [0, 1000000]", "range: [1, 1000000]", 21, "let its range begin at 0"),
        ("type: int", "type: int\n    at_work: maybe", 19, "'at_work' must be true or false"),
        ("name: temp", "name: energy_kWh", 15, "is a meter, which only grows: give 'counts'"),
        ("title: Mill", "title: [Mill", 3, "not YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_the_mend(old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as told:
        parse_own_class(GOOD.replace(old, new, 1), "mill.yaml", CATALOGUE)
    sentence = str(told.value)
    assert sentence.startswith(f"mill.yaml, line {line}: "), sentence
    assert says in sentence


def test_no_class_may_have_the_name_of_a_measurement() -> None:
    assert set(RESERVED) == {name.removesuffix(HOURLY) for name in MEASUREMENTS.keys() - CATALOGUE.keys()}
    assert is_id(unit_id("370202", "a" * MAX_NAME, 9_999_999))


def test_files_folders_and_both_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    folder.mkdir()
    (folder / "README.md").write_text("no class")
    (folder / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(GOOD.replace("name: mill", "name: crusher"))
    sources = os.pathsep.join(map(str, (folder, tmp_path / "b.yaml")))
    assert [own.equipment.name for own in load_own_classes(sources, CATALOGUE)] == ["crusher", "mill"]
    assert load_own_classes("", CATALOGUE) == []
    (folder / "c.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"c\.yaml, line 1: the name 'mill' is taken"):
        load_own_classes(sources, CATALOGUE)
    with pytest.raises(ConfigError, match="take a YAML file or a folder of them"):
        load_own_classes(str(tmp_path / "nowhere.yaml"), CATALOGUE)


@pytest.mark.parametrize(
    "command", [("devices", "catalogue"), ("devices", "run"), ("gateway", "run"), ("up", "--state")]
)
def test_every_service_refuses_a_bad_file_in_one_sentence(command: tuple[str, ...], tmp_path: Path) -> None:
    bad = tmp_path / "mill.yaml"
    bad.write_text(GOOD.replace("interval: 10s", "interval: soon"))
    words = [*command, str(tmp_path / "state")] if command[-1] == "--state" else command
    program = [Path(sys.executable).parent / "qilu", *words, "--classes", bad]
    said = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 2, said.stderr
    assert f"{bad}, line 8: 'interval' must be a duration" in said.stderr
    assert len(said.stderr.strip().splitlines()) == 1


def test_without_the_variable_there_are_the_built_in_classes_alone() -> None:
    assert OWN == {}


FORMS = """\
templates:
  - {metric: Drive, definition: drive, members: {Load: load, Motion/Turns: turns}}
data_sets:
  - {metric: Log, time: t, columns: {Temp: temp}}
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Load: load", "Load: speed", "'speed' is no signal: use one of load, temp, turns"),
        ("Temp: temp", "Temp: load", "the signal 'load' has a place already"),
        ("Motion/Turns", "Load", "'Drive/Load' is given twice"),
        ("metric: Log", "metric: Drive", "the name 'Drive' is taken"),
        ("metric: Log", "metric: load", "the name 'load' is taken"),
        ("metric: Log", "metric: Properties/Log", "'Properties/Log' describes a device"),
        ("metric: Log", "metric: Log//x", "'metric' must be a name of 1 to 64 characters"),
        ("time: t", "time: Temp", "the column 'Temp' holds the time: it is no signal"),
        ("time: t, ", "", "a DataSet lacks time"),
        ("{Temp: temp}", "[temp]", "'columns' must be lines of 'name: signal'"),
        (
            "  - {metric: Log, time: t, columns: {Temp: temp}}",
            "  []",
            "'data_sets' must have 1 to 16 entries",
        ),
        ("definition: drive, ", "", "a Template lacks definition"),
    ],
)
def test_a_wrong_form_is_reported_with_its_line(old: str, new: str, says: str) -> None:
    assert old in FORMS
    with pytest.raises(ConfigError, match=re.escape(says)) as wrong:
        parse_own_class(GOOD + FORMS.replace(old, new), "mill.yaml")
    assert str(wrong.value).startswith("mill.yaml, line 2")


def test_two_classes_have_no_definition_in_common(tmp_path: Path) -> None:
    for name in ("mill", "press"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("name: mill", f"name: {name}") + FORMS)
    with pytest.raises(ConfigError, match="the class 'mill' has a definition 'drive' as well"):
        load_own_classes(str(tmp_path), CATALOGUE)
