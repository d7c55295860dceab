"""Scenarios: YAML files that describe a simulation. Errors name the file, the line and the fix."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import yaml
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES
from qilu_contract.catalogue.yaml_parser import YamlParser, read_text

from qilu_devices.faults import PEAK, FaultPlan, Order
from qilu_devices.transport.episodes import (
    LARGEST_DRIFT_PPM,
    LARGEST_SHIFT_MS,
    SHORTEST_WINDOW_MS,
    Kind,
    TransportFault,
    TransportPlan,
)

MAX_UNITS = 10_000_000
"""The programme's own target; also what unit numbers of seven digits have room for."""

_KEYS = ("name", "units", "seed", "start", "classes", "cities", "faults", "fault", "transport")
_MAX_RATE = 1000.0
_TRANSPORT_KEYS = {Kind.CLOCK_SKEW: ("by", "drift_ppm"), Kind.RECONNECT_STORM: ("share",)}
_OPTIONAL_KEYS = {Kind.ATTACK: ("share",)}
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario. `text` is the content of the file; `sha256` is its fingerprint."""

    name: str
    units: int
    seed: int
    start_ms: int | None
    classes: Mapping[str, float]
    cities: Mapping[str, float]
    faults: FaultPlan
    transport: TransportPlan
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


SHIPPED = ("default", "detection-easy", "detection-real", "detection-hard")
"""Scenarios that come with the package, by name."""


def load_scenario(path: Path | None = None) -> Scenario:
    """The scenario in a file, the shipped one of that name, or the default one. Raises ConfigError."""
    name = "default" if path is None else str(path)
    if path is None or (name in SHIPPED and not path.exists()):
        text = files("qilu_devices").joinpath("scenarios", f"{name}.yaml").read_text(encoding="utf-8")
        return parse_scenario(text, f"{name}.yaml")
    return parse_scenario(read_text(path, "the scenario"), str(path))


def parse_scenario(text: str, source: str) -> Scenario:
    """Parse a scenario; `source` names it in messages. Raises ConfigError with the line of the error."""
    return _Parser(source).parse(text)


class _Parser(YamlParser):
    def parse(self, text: str) -> Scenario:
        root = self._root(
            text, f"the scenario is empty: give at least {', '.join(_KEYS[:2])}, classes and cities."
        )
        fields = self._mapping(root, "the scenario", _KEYS)

        def get(key: str, read: Callable[[yaml.Node], _Loaded]) -> _Loaded:
            return self._given(fields, root, key, read, f"a line '{key}: …' (see the default scenario)")

        return Scenario(
            name=get("name", self._name),
            units=get("units", lambda node: self._whole(node, "units", 1, MAX_UNITS)),
            seed=get("seed", lambda node: self._whole(node, "seed", 0, 2**63 - 1)),
            start_ms=self._time(fields["start"]) if "start" in fields else None,
            classes=get("classes", lambda node: self._weights(node, "class", tuple(CATALOGUE))),
            cities=get("cities", lambda node: self._weights(node, "city", tuple(CITIES))),
            faults=self._faults(fields.get("faults"), fields.get("fault")),
            transport=self._transport(fields["transport"]) if "transport" in fields else {},
            text=text,
        )

    def _faults(self, node: yaml.Node | None, ordered: yaml.Node | None) -> FaultPlan:
        orders = self._orders(ordered) if ordered is not None else ()
        if node is None:
            return FaultPlan(orders=orders)
        fields = self._mapping(node, "'faults'", ("rate", "severity"))
        if "rate" not in fields:
            raise self._wrong(node, "'faults' needs 'rate': 1 is each fault's usual rate, 0 none.")
        rate = self._number(fields["rate"], "rate", 0.0, _MAX_RATE)
        peak = self._peak(fields["severity"]) if "severity" in fields else PEAK
        return FaultPlan(rate, orders, peak=peak)

    def _peak(self, node: yaml.Node) -> tuple[float, float]:
        numbers = [
            self._number(each, "severity", 0.0, 1.0)
            for each in self._list(node, "'severity'", ": [0.2, 0.5], the least and the largest")
        ]
        if len(numbers) != 2 or not 0.0 < numbers[0] <= numbers[1]:
            raise self._wrong(
                node, "'severity' has two numbers, the least above 0 and the largest: [0.2, 0.5]."
            )
        return numbers[0], numbers[1]

    def _orders(self, node: yaml.Node) -> tuple[Order, ...]:
        items = self._list(node, "'fault'", ": '- {unit: …, fault: …, start: 10m, duration: 1h}'")
        return tuple(self._order(item) for item in items)

    def _order(self, node: yaml.Node) -> Order:
        fields = self._mapping(node, "a fault", ("unit", "fault", "start", "duration", "severity"))
        for key in ("unit", "fault", "start", "duration"):
            if key not in fields:
                raise self._wrong(node, f"a fault needs '{key}': unit, fault, start and duration.")
        unit, fault = (str(self._scalar(fields[key])) for key in ("unit", "fault"))
        parts = re.fullmatch(r"\d{6}-([a-z0-9-]+)-\d{7}", unit)
        equipment = CATALOGUE.get(parts[1].replace("-", "_")) if parts else None
        if equipment is None:
            raise self._wrong(
                fields["unit"], f"{unit!r} is no unit of a fleet: write an id like 370202-motor-0000123."
            )
        known = [each.name for each in equipment.faults]
        if fault not in known:
            mend = f"use one of {', '.join(known)}" if known else "a custom class has none"
            raise self._wrong(fields["fault"], f"class {equipment.name} has no fault '{fault}': {mend}.")
        start_ms, absolute = self._fault_start(fields["start"])
        duration_ms = self._duration(fields["duration"], "duration")
        if duration_ms <= 0:
            raise self._wrong(fields["duration"], "'duration' must be more than 0.")
        severity = self._number(fields["severity"], "severity", 0.0, 1.0) if "severity" in fields else 1.0
        return Order(unit, fault, start_ms, absolute, duration_ms, severity)

    def _transport(self, node: yaml.Node) -> TransportPlan:
        fields = self._mapping(node, "'transport'", tuple(Kind))
        return {Kind(name): self._transport_fault(Kind(name), each) for name, each in fields.items()}

    def _transport_fault(self, kind: Kind, node: yaml.Node) -> TransportFault:
        more = _TRANSPORT_KEYS.get(kind, ())
        fields = self._mapping(node, f"'{kind}'", ("every", "for", *more, *_OPTIONAL_KEYS.get(kind, ())))
        for key in ("every", "for", *more[:1]):
            if key not in fields:
                raise self._wrong(node, f"'{kind}' needs '{key}': {', '.join(('every', 'for', *more))}.")
        every_ms, for_ms = (self._duration(fields[key], key) for key in ("every", "for"))
        if every_ms < SHORTEST_WINDOW_MS:
            raise self._wrong(fields["every"], f"'every' must be {SHORTEST_WINDOW_MS // 1000}s or more.")
        if not 0 < for_ms <= every_ms:
            raise self._wrong(fields["for"], "'for' must be more than 0, and no longer than 'every'.")
        by_ms = self._duration(fields["by"], "by") if "by" in fields else 0
        drift = (
            self._whole(fields["drift_ppm"], "drift_ppm", 0, LARGEST_DRIFT_PPM)
            if "drift_ppm" in fields
            else 0
        )
        share = self._number(fields["share"], "share", 0.0, 1.0) if "share" in fields else 1.0
        fault = TransportFault(every_ms, for_ms, by_ms, drift, share)
        if "by" in fields and not (by_ms >= 1000 and fault.largest_shift_ms <= LARGEST_SHIFT_MS):
            raise self._wrong(
                fields["by"],
                f"'by' must be 1s or more, and with its drift less than {LARGEST_SHIFT_MS // 1000}s.",
            )
        return fault

    def _fault_start(self, node: yaml.Node) -> tuple[int, bool]:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if re.match(r"\d{4}-", text):
            return self._time(node), True
        return self._duration(node, "start"), False

    def _weights(self, node: yaml.Node, what: str, allowed: tuple[str, ...]) -> dict[str, float]:
        weights = {}
        hint = ", or give the file of a custom class with --classes" if what == "class" else ""
        for key, value_node in self._mapping(node, f"the {what} mix", allowed, hint=hint).items():
            value = self._scalar(value_node)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise self._wrong(
                    value_node,
                    f"the weight of {what} '{key}' must be a number of 0 or more, not {value_node.value!r}.",
                )
            weights[key] = float(value)
        if not any(weights.values()):
            raise self._wrong(node, f"the {what} mix is all zero: give at least one {what} a weight above 0.")
        return weights
