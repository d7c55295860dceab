"""The equipment's pages are what the code makes, every class and fault has its picture, and what a picture
shows is the fault's signature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import EquipmentClass
from qilu_devices.pages import DAY, page_name, picture_name, texts, write_pages
from qilu_devices.twins import ONSET, day, twins

FOLDER = Path(__file__).parents[2] / "docs" / "equipment"
CLASSES = list(CATALOGUE.values())


def test_the_pages_are_what_the_code_makes() -> None:
    kept = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    del kept["realism.md"]  # written by hand
    old = sorted(name for name, text in texts(CLASSES).items() if kept.pop(name, None) != text)
    assert not old, f"run `qilu devices catalogue --write docs/equipment`: {old} are old"
    assert not kept


def test_every_class_and_every_fault_has_its_picture() -> None:
    wanted = {
        FOLDER / equipment.name.replace("_", "-") / name
        for equipment in CLASSES
        for name in (DAY, *map(picture_name, equipment.faults))
    }
    found = set(FOLDER.glob("*/*"))
    assert found == wanted
    assert sum(path.stat().st_size for path in found) < 4_000_000


@pytest.mark.parametrize("equipment", CLASSES, ids=lambda each: each.name)
def test_a_page_names_every_signal_and_fault_and_has_equations(equipment: EquipmentClass) -> None:
    page = texts([equipment])[page_name(equipment)]
    for signal in equipment.signals:
        assert f"| `{signal.name}` | {signal.unit} |" in page
    for fault in equipment.faults:
        assert fault.signature in page
        assert f"/{picture_name(fault)})" in page
    equations = page.split("```text\n")[1].split("\n```")[0]
    assert equations.count("=") >= 2, equations


@pytest.mark.parametrize("equipment", CLASSES, ids=lambda each: each.name)
def test_what_a_faults_picture_shows_is_its_signature(equipment: EquipmentClass) -> None:
    for fault in equipment.faults:
        pair = twins(equipment, fault)
        assert any(sign.direction != "=" for sign in fault.shows)
        missing = {sign.signal for sign in fault.shows if not pair.shows(sign)}
        if fault.name == "reducer_wear":  # one joint of a unit wears, of two that the signature names
            assert missing in ({"torque_2"}, {"torque_3"})
            missing = set()
        assert not missing, fault.name
        for sign in fault.shows:
            sound, faulty = pair.sound[sign.signal], pair.faulty[sign.signal]
            assert (sound[:ONSET] == faulty[:ONSET]).all(), (fault.name, sign)


def test_a_normal_day_is_of_a_unit_that_works() -> None:
    equipment = CATALOGUE["motor"]
    hours, series = day(equipment)
    assert (hours[0], hours[-1]) == (0.0, 24.0)
    assert series[equipment.base_signal.name].std() > 0.0
    assert all(len(values) == len(hours) and np.isfinite(values).all() for values in series.values())


def test_pages_and_pictures_are_written(tmp_path: Path) -> None:
    oven = CATALOGUE["oven"]
    written = list(write_pages(tmp_path / "pages", [oven]))
    assert {path.name for path in written} == {"oven.md", DAY, *map(picture_name, oven.faults)}
    for path in written[1:]:
        with Image.open(path) as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(256) or ()) > 3
