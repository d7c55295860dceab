"""An equipment class, a store and a door each need one folder or module and one registration.

Each test adds a toy one to a copy of our packages as CONTRIBUTING.md describes, and uses it in a separate
process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "contract/qilu_contract",
    "common/qilu_common",
    "stores/qilu_stores",
    "devices/qilu_devices",
    "gateway/qilu_gateway",
    "platform/qilu_platform",
    "qilu/qilu",
    "dashboards/qilu_dashboards",
)


class Tree:
    """A copy of our packages, in which a test may add files and lines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package, folder / Path(package).name, ignore=shutil.ignore_patterns("__pycache__")
            )

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def append(self, path: str, *rows: str) -> None:
        with (self.folder / path).open("a", encoding="utf-8") as file:
            file.writelines(f"{row}\n" for row in rows)

    def register(self, path: str, before: str, line: str) -> None:
        """Insert `line` before the only line that begins with `before`."""
        file = self.folder / path
        text = file.read_text(encoding="utf-8")
        assert text.count(f"\n{before}") == 1
        file.write_text(text.replace(f"\n{before}", f"\n{line}\n{before}"), encoding="utf-8")

    def run(self, code: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(self.folder)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


KERNEL = '''
"""Fans: power by the cube of the speed."""

from qilu_devices.controls import AUTOMATIC
from qilu_devices.kernel import SOUND, Consumption


class Fans:
    def __init__(self, units, enterprises, interval_s):
        self._rated = units.uniform("speed", 900.0, 1500.0)
        self._meters = Consumption(len(units), interval_s)

    def step(self, k, t_ms, faults=SOUND, controls=AUTOMATIC):
        speed = controls.value("speed", self._rated) * (1.0 - 0.2 * faults["imbalance"])
        power = speed * speed * speed * 1e-8
        return {"speed": speed, "power_in": power, **self._meters.step(k, power, 0.58 * power)}
'''

USE_CLASS = """
from dataclasses import replace

import numpy as np
import qilu_devices
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.storage import MEASUREMENTS
from qilu_dashboards.build import build_all
from qilu_devices.pages import texts
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import fleet_of
from qilu_devices.twins import profile_of

day = qilu_devices.simulate("fan", start="2022-06-01T00:00:00+08:00", duration="10m", units=3)
assert 20.0 < np.nanmin(day["power_in"] * 1000.0) and np.nanmax(day["speed"]) <= 1500.0
assert "speed" in MEASUREMENTS["fan"].fields
mixed = replace(load_scenario(None), classes={"motor": 1.0, "fan": 1.0})
assert {unit.class_name for unit in fleet_of(mixed, units=400)} == {"motor", "fan"}
assert "fan.md" in texts(CATALOGUE.values())
assert "class-fan.json" in build_all()
profile_of("fan", CATALOGUE["fan"].faults[0])
"""


def test_an_equipment_class_is_rows_of_the_catalogue_a_module_and_one_line(tree: Tree) -> None:
    data = "qilu_contract/data"
    tree.append(f"{data}/classes.csv", "fan,Fan,风机,yes")
    tree.append(
        f"{data}/signals.csv",
        "fan,speed,rpm,float,0.1,1200,0,1600,10,,A,assumed",
        "fan,power_in,kW,float,0.001,17,0,60,10,,A,assumed",
        "fan,energy_kWh,kWh,float,0.01,0,0,1e9,60,,A,assumed",
        "fan,co2_kg,kg,float,0.01,0,0,1e9,60,,A,assumed",
    )
    tree.append(f"{data}/faults.csv", "fan,imbalance,Imbalance,speed down,speed-,assumed,A,2000,24,4,")
    tree.append(f"{data}/set_points.csv", "fan,speed,rpm,600,1500,Speed,A,assumed")
    tree.write("qilu_devices/classes/fan.py", KERNEL)
    classes = "qilu_devices/classes/__init__.py"
    tree.register(classes, "from qilu_devices.classes.loom", "from qilu_devices.classes.fan import Fans")
    tree.register(classes, '    "loom"', '    "fan": Fans,')
    tree.run(USE_CLASS)


STORE = '''
"""A store in memory."""


class MemoryStore:
    def __init__(self, name):
        self.name, self.points = name, {}

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def write(self, points, columns=()):
        self.points |= {(point.measurement, point.tags, point.ts_ms): point for point in points}


def open_url(url, token):
    return MemoryStore(url.partition("://")[2]) if url.endswith("/readings") else None
'''

USE_STORE = """
import asyncio
from qilu_contract.errors import ConfigError
from qilu_contract.storage import Point
from qilu_stores import open_store

async def main():
    async with open_store("memory://here/readings") as store:
        await store.write([Point("dead_letter", ("a", "b"), 1, {"readings": 1})] * 2)
        assert len(store.points) == 1, store.points
    try:
        open_store("memory://wrong")
    except ConfigError as error:
        assert "or memory://host/readings" in str(error), error
    else:
        raise AssertionError("accepted")

asyncio.run(main())
"""


def test_a_store_is_a_folder_and_one_line(tree: Tree) -> None:
    tree.write("qilu_stores/memory/__init__.py", STORE)
    tree.register(
        "qilu_stores/__init__.py",
        ")\n\n\ndef open_store(",
        '    _Kind(("memory",), "memory", "memory://host/readings"),',
    )
    tree.run(USE_STORE)


PAYLOAD = '''
"""Readings as text: `time;signal=value;…`."""

from qilu_contract.errors import BadReading, Reason
from qilu_contract.readings import Reading


def decode(unit, body, receipt=None):
    time, *pairs = body.decode().split(";")
    if not pairs:
        raise BadReading(Reason.BAD_PAYLOAD, "a reading is time;signal=value")
    ts_ms = int(time) if time else receipt()
    yield Reading(unit, ts_ms, {name: float(value) for name, _, value in (p.partition("=") for p in pairs)})


def count(body):
    return 1


def with_time(body, ts_ms):
    return b"%d%b" % (ts_ms, body)
'''

USE_DOOR = """
from pathlib import Path

from qilu.rights import RIGHTS
from qilu_contract.errors import Reason
from qilu_contract.readings import Reading
from qilu_contract.wire.partitions import parse as partition
from qilu_gateway.connect.session import filters
from qilu_gateway.read.births import SCHEMA, Births
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.statefile import StateFile
from qilu_platform.broker.certificates import Node
from qilu_platform.broker.rules import acl

decoder = Decoder(Births(StateFile(Path.cwd(), [SCHEMA])), 1024)

def decode(topic, body, **how):
    return decoder.decode(topic, body, dup=False, **how)

found = decode("text/v1/370202/works/m1/values", b"1767225600000;speed=2.5")
assert found.readings == [Reading("m1", 1767225600000, {"speed": 2.5})], found
assert (found.county, found.enterprise, found.unit) == ("370202", "works", "m1")
(bad,) = decode("text/v1/370202/works/m1/values", b"1767225600000").refused
assert bad.reason is Reason.BAD_PAYLOAD
(bad,) = decode("text/v1/370202/works/m1/value", b"").refused
assert bad.reason is Reason.BAD_TOPIC and "text/v1/<county>/<enterprise>/<unit>/values" in bad.detail
(bad,) = decode("text/v1/370202/works/m1/values", b";" * 2000).refused
assert bad.reason is Reason.TOO_LARGE

assert "text/v1/#" in filters(partition("1/1"))
assert any(each.startswith("text/v1/37") for each in filters(partition("1/2")))
assert "text/v1/#" in RIGHTS["gateway"].reads
assert "text/v1/+/+/+/values" in RIGHTS["devices"].writes
assert "topic write text/v1/370202/works/+/values\\n" in acl([Node("works", "370202")])
"""


def test_a_door_is_a_module_and_one_line(tree: Tree) -> None:
    tree.write("qilu_contract/wire/text_payload.py", PAYLOAD)
    doors = "qilu_contract/wire/doors.py"
    tree.register(doors, "from qilu_contract.wire import", "from qilu_contract.wire import text_payload")
    tree.register(
        doors,
        ']\n"""Every door',
        '    Door("text/v1", "values", text_payload.decode, text_payload.count, text_payload.with_time),',
    )
    tree.run(USE_DOOR)
