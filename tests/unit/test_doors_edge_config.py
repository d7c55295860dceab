"""Configuration of `qilu edge run`: what is read, and mistakes as one sentence with the line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_devices import doors
from qilu_devices.doors.edge_config import Register, load_edge_config
from qilu_devices.doors.registers import Format

HEAD = 'enterprise: e1\ncounty: "370202"\n'
UNIT = "units:\n  - {unit: m1, class: motor}\n"


def load(folder: Path, text: str) -> object:
    path = folder / "edge.yaml"
    path.write_text(text)
    return load_edge_config(path)


def test_registers_of_a_foreign_server_are_read(tmp_path: Path) -> None:
    signals = "".join(
        f"      {signal.name}: {{address: {n}, type: int16, scale: 0.1, table: holding}}\n"
        for n, signal in enumerate(CATALOGUE["motor"].signals)
    )
    unit = f"units:\n  - unit: m1\n    class: motor\n    device: 7\n    format: CDAB\n    signals:\n{signals}"
    path = tmp_path / "edge.yaml"
    path.write_text(f"{HEAD}modbus: 127.0.0.1:502\nevery: 1s\n{unit}")
    config = load_edge_config(path)
    (source,) = config.sources
    assert (config.protocol, config.every_ms, source.device, source.format) == (
        "modbus",
        1000,
        7,
        Format("CDAB"),
    )
    assert source.registers["power_in"] == Register(0, "int16", 0.1, "holding")
    assert source.unit.enterprise.county == "370202"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        (HEAD + UNIT, "either 'opcua' or 'modbus'"),
        (f"{HEAD}opcua: opc.tcp://x:1\nmodbus: x:1\n{UNIT}", "either 'opcua' or 'modbus'"),
        (f'enterprise: e1\ncounty: "1"\nopcua: x\n{UNIT}', "line 2: there is no county '1'"),
        (f"{HEAD}opcua: x\ninsecure: maybe\n{UNIT}", "line 4: 'insecure' must be true or false"),
        (f"{HEAD}opcua: x\nunits: []\n", "name at least one unit"),
        (f"{HEAD}opcua: x\n{UNIT}  - {{unit: m1, class: motor}}\n", "m1 is given twice"),
        (f"{HEAD}opcua: x\nunits:\n  - {{unit: m1, class: press}}\n", "'class' must be one of"),
        (f"{HEAD}opcua: x\nunits:\n  - {{unit: m1, class: motor, device: 1}}\n", "has no 'device'"),
        (
            f"{HEAD}opcua: x\nunits:\n  - {{unit: m1, class: motor, signals: {{speed: a}}}}\n",
            "lacks power_in",
        ),
        (f"{HEAD}modbus: x:1\nunits:\n  - {{unit: m1, class: motor, format: AB}}\n", "no register format"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("extra", "package"), [("opcua", "asyncua"), ("modbus", "pymodbus")])
def test_an_extra_that_is_not_installed_is_named_in_one_sentence(
    extra: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.startswith((package, f"qilu_devices.doors.{extra}"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}.*pip install 'clouds-in-qilu\[{extra}\]'"):
        doors.load(extra, "server")
