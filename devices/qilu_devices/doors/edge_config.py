"""Configuration of `qilu edge run`: a YAML file that names a server, an enterprise and its units.

    enterprise: 370502-e00001
    county: "370502"
    opcua: opc.tcp://127.0.0.1:4840
    units:
      - {unit: press-7, class: motor, signals: {power_in: "ns=2;s=Press7.Power", …}}
      - {unit: 370502-motor-0000001, class: motor}

A unit without `signals` is one of our own servers' (`qilu devices serve`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.catalogue.yaml_parser import YamlParser, read_text
from qilu_contract.errors import ConfigError
from qilu_contract.wire.ids import is_id

from qilu_devices.doors.registers import PLAIN, Format
from qilu_devices.fleet import Enterprise, Unit

Protocol = Literal["opcua", "modbus"]
_PROTOCOLS: tuple[Protocol, ...] = ("opcua", "modbus")
_TYPES = ("uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
_TABLES = ("input", "holding")
DEFAULT_EVERY_MS = 200
"""Interval of polls of a Modbus server, unless `every` is given; assumed: five for each second."""


class Register(NamedTuple):
    """A signal in Modbus registers; the value is the number times `scale`."""

    address: int
    type: str
    scale: float
    table: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where the values of a unit are. `nodes` or `registers` by signal; both are empty for our own servers.
    `device`: Modbus device id."""

    unit: Unit
    nodes: Mapping[str, str]
    registers: Mapping[str, Register]
    device: int
    format: Format


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Configuration of an edge node. `url`: of the server. `insecure`: OPC UA without encryption. `every_ms`:
    interval of Modbus polls."""

    enterprise: Enterprise
    protocol: Protocol
    url: str
    insecure: bool
    every_ms: int
    sources: tuple[Source, ...]

    @property
    def units(self) -> list[Unit]:
        return [source.unit for source in self.sources]


def load_edge_config(path: Path) -> EdgeConfig:
    """Read a configuration. Raises ConfigError with the line of the mistake."""
    return _Parser(str(path)).parse(read_text(path, "the configuration"))


class _Parser(YamlParser):
    def parse(self, text: str) -> EdgeConfig:
        root = self._root(text, "the configuration is empty: give enterprise, county, a server and units.")
        keys = ("enterprise", "county", *_PROTOCOLS, "insecure", "every", "units")
        found = self._mapping(root, "the configuration", keys, ("enterprise", "county", "units"))
        protocols = [name for name in _PROTOCOLS if name in found]
        if len(protocols) != 1:
            raise self._wrong(root, "the configuration names one server: give either 'opcua' or 'modbus'.")
        county = str(self._scalar(found["county"]))
        if county not in COUNTIES:
            raise self._wrong(found["county"], f"there is no county {county!r}: give its code of six digits.")
        name = self._id(found["enterprise"], "enterprise")
        enterprise = Enterprise(name, 0, name, county, "")
        items = self._list(found["units"], "'units'", ": '- {unit: …, class: …}'")
        sources = tuple(
            self._unit_source(item, enterprise, protocols[0], n) for n, item in enumerate(items, 1)
        )
        if not sources:
            raise self._wrong(found["units"], "'units' is empty: name at least one unit.")
        ids = [source.unit.id for source in sources]
        for node, id_ in zip(items, ids, strict=True):
            if ids.count(id_) > 1:
                raise self._wrong(node, f"unit {id_} is given twice: keep one.")
        return EdgeConfig(
            enterprise,
            protocols[0],
            str(self._scalar(found[protocols[0]])),
            self._flag(found["insecure"]) if "insecure" in found else False,
            self._duration(found["every"], "every") if "every" in found else DEFAULT_EVERY_MS,
            sources,
        )

    def _flag(self, node: yaml.Node) -> bool:
        value = self._scalar(node)
        if not isinstance(value, bool):
            raise self._wrong(node, "'insecure' must be true or false.")
        return value

    def _id(self, node: yaml.Node, what: str) -> str:
        text = str(self._scalar(node))
        if not is_id(text):
            raise self._wrong(node, f"'{what}' must be an id such as 370202-e00001, not {text!r}.")
        return text

    def _unit_source(
        self, node: yaml.Node, enterprise: Enterprise, protocol: Protocol, number: int
    ) -> Source:
        keys = ("unit", "class", "signals") + (("device", "format") if protocol == "modbus" else ())
        found = self._mapping(node, "a unit", keys, ("unit", "class"))
        class_name = self._choice(found["class"], "class", tuple(CATALOGUE))
        unit = Unit(self._id(found["unit"], "unit"), class_name, enterprise)
        nodes: dict[str, str] = {}
        registers: dict[str, Register] = {}
        if "signals" in found:
            names = tuple(signal.name for signal in CATALOGUE[class_name].signals)
            mapped = self._mapping(found["signals"], "'signals'", names, names)
            if protocol == "opcua":
                nodes = {name: str(self._scalar(each)) for name, each in mapped.items()}
            else:
                registers = {name: self._register(each) for name, each in mapped.items()}
        device = self._whole(found["device"], "device", 0, 255) if "device" in found else number
        return Source(unit, nodes, registers, device, self._format(found.get("format")))

    def _format(self, node: yaml.Node | None) -> Format:
        if node is None:
            return PLAIN
        try:
            return Format.parse(str(self._scalar(node)))
        except ConfigError as error:
            raise self._wrong(node, str(error)) from error

    def _register(self, node: yaml.Node) -> Register:
        found = self._mapping(node, "a register", ("address", "type", "scale", "table"), ("address", "type"))
        return Register(
            self._whole(found["address"], "address", 0, 65_535),
            self._choice(found["type"], "type", _TYPES),
            self._number(found["scale"], "scale", -1e9, 1e9) if "scale" in found else 1.0,
            self._choice(found["table"], "table", _TABLES) if "table" in found else "input",
        )
