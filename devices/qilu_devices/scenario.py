"""Scenarios: YAML files that say what is simulated. A mistake is told with file, line and how to mend it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_contract.places import CITIES

from qilu_devices.faults import FaultPlan, Order
from qilu_devices.transport import (
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
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated. `text` is the file as it was read; `sha256` is its fingerprint."""

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


def load_scenario(path: Path | None = None) -> Scenario:
    """The scenario in a file, or the default one. Raises ConfigError."""
    if path is None:
        text = files("qilu_devices").joinpath("scenarios", "default.yaml").read_text(encoding="utf-8")
        return parse_scenario(text, "default.yaml")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the scenario cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the scenario is not UTF-8 text: save it as UTF-8.") from error
    return parse_scenario(text, str(path))


def parse_scenario(text: str, source: str) -> Scenario:
    """The scenario in `text`; `source` names it in messages. Raises ConfigError with the mistake's line."""
    return _Parser(source).parse(text)


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source

    def _wrong(self, node: yaml.Node | int, sentence: str) -> ConfigError:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        return ConfigError(f"{self._source}, line {line}: {sentence}")

    def parse(self, text: str) -> Scenario:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 1
            raise self._wrong(
                line, f"this is not YAML ({error.problem}): mend the line or the one above."
            ) from error
        except yaml.YAMLError as error:
            raise self._wrong(1, f"this is not YAML: {str(error).splitlines()[0]}.") from error
        if root is None:
            raise self._wrong(
                1, f"the scenario is empty: give at least {', '.join(_KEYS[:2])}, classes and cities."
            )
        found = self._mapping(root, "the scenario", _KEYS)

        def get(key: str, read: Callable[[yaml.Node], _Loaded]) -> _Loaded:
            if key not in found:
                raise self._wrong(
                    root, f"'{key}' is missing: add a line '{key}: …' (see the default scenario)."
                )
            return read(found[key])

        return Scenario(
            name=get("name", self._name),
            units=get("units", lambda node: self._whole(node, "units", 1, MAX_UNITS)),
            seed=get("seed", lambda node: self._whole(node, "seed", 0, 2**63 - 1)),
            start_ms=self._time(found["start"]) if "start" in found else None,
            classes=get("classes", lambda node: self._weights(node, "class", tuple(CATALOGUE))),
            cities=get("cities", lambda node: self._weights(node, "city", tuple(CITIES))),
            faults=FaultPlan(
                rate=self._rate(found["faults"]) if "faults" in found else 0.0,
                orders=self._orders(found["fault"]) if "fault" in found else (),
            ),
            transport=self._transport(found["transport"]) if "transport" in found else {},
            text=text,
        )

    def _rate(self, node: yaml.Node) -> float:
        found = self._mapping(node, "'faults'", ("rate",))
        if "rate" not in found:
            raise self._wrong(node, "'faults' needs 'rate': 1 is each fault's usual rate, 0 none.")
        return self._number(found["rate"], "rate", 0.0, _MAX_RATE)

    def _orders(self, node: yaml.Node) -> tuple[Order, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._wrong(
                node, "'fault' must be a list: '- {unit: …, fault: …, start: 10m, duration: 1h}'."
            )
        return tuple(self._order(item) for item in node.value)

    def _order(self, node: yaml.Node) -> Order:
        found = self._mapping(node, "a fault", ("unit", "fault", "start", "duration", "severity"))
        for key in ("unit", "fault", "start", "duration"):
            if key not in found:
                raise self._wrong(node, f"a fault needs '{key}': unit, fault, start and duration.")
        unit, fault = (str(self._scalar(found[key])) for key in ("unit", "fault"))
        parts = re.fullmatch(r"\d{6}-([a-z0-9-]+)-\d{7}", unit)
        equipment = CATALOGUE.get(parts[1].replace("-", "_")) if parts else None
        if equipment is None:
            raise self._wrong(
                found["unit"], f"{unit!r} is no unit of a fleet: write an id like 370202-motor-0000123."
            )
        known = [each.name for each in equipment.faults]
        if fault not in known:
            raise self._wrong(
                found["fault"],
                f"class {equipment.name} has no fault '{fault}': use one of {', '.join(known)}.",
            )
        start_ms, absolute = self._fault_start(found["start"])
        duration_ms = self._duration(found["duration"], "duration")
        if duration_ms <= 0:
            raise self._wrong(found["duration"], "'duration' must be more than 0.")
        severity = self._number(found["severity"], "severity", 0.0, 1.0) if "severity" in found else 1.0
        return Order(unit, fault, start_ms, absolute, duration_ms, severity)

    def _transport(self, node: yaml.Node) -> TransportPlan:
        found = self._mapping(node, "'transport'", tuple(Kind))
        return {Kind(name): self._transport_fault(Kind(name), each) for name, each in found.items()}

    def _transport_fault(self, kind: Kind, node: yaml.Node) -> TransportFault:
        more = _TRANSPORT_KEYS.get(kind, ())
        found = self._mapping(node, f"'{kind}'", ("every", "for", *more))
        for key in ("every", "for", *more[:1]):
            if key not in found:
                raise self._wrong(node, f"'{kind}' needs '{key}': {', '.join(('every', 'for', *more))}.")
        every_ms, for_ms = (self._duration(found[key], key) for key in ("every", "for"))
        if every_ms < SHORTEST_WINDOW_MS:
            raise self._wrong(found["every"], f"'every' must be {SHORTEST_WINDOW_MS // 1000}s or more.")
        if not 0 < for_ms <= every_ms:
            raise self._wrong(found["for"], "'for' must be more than 0, and no longer than 'every'.")
        by_ms = self._duration(found["by"], "by") if "by" in found else 0
        drift = (
            self._whole(found["drift_ppm"], "drift_ppm", 0, LARGEST_DRIFT_PPM) if "drift_ppm" in found else 0
        )
        share = self._number(found["share"], "share", 0.0, 1.0) if "share" in found else 1.0
        fault = TransportFault(every_ms, for_ms, by_ms, drift, share)
        if "by" in found and not (by_ms >= 1000 and fault.largest_shift_ms <= LARGEST_SHIFT_MS):
            raise self._wrong(
                found["by"],
                f"'by' must be 1s or more, and with its drift less than {LARGEST_SHIFT_MS // 1000}s.",
            )
        return fault

    def _fault_start(self, node: yaml.Node) -> tuple[int, bool]:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        if re.match(r"\d{4}-", text):
            return self._time(node), True
        return self._duration(node, "start"), False

    def _duration(self, node: yaml.Node, what: str) -> int:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd])", text)
        if not found:
            raise self._wrong(node, f"'{what}' must be a duration like 90s, 10m, 2h or 3d, not {text!r}.")
        return round(float(found[1]) * _UNIT_MS[found[2]])

    def _number(self, node: yaml.Node, what: str, low: float, high: float) -> float:
        value = self._scalar(node)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:  # nan is not within either
            raise self._wrong(
                node, f"'{what}' must be a number from {low:g} to {high:g}, not {node.value!r}."
            )
        return float(value)

    def _mapping(self, node: yaml.Node, what: str, allowed: tuple[str, ...]) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, f"{what} must be lines of 'key: value'.")
        found: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key not in allowed:
                raise self._wrong(key_node, f"{what} has no '{key}': use one of {', '.join(allowed)}.")
            if key in found:
                raise self._wrong(key_node, f"'{key}' is given twice: keep one.")
            found[key] = value_node
        return found

    def _scalar(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._wrong(node, "a single value is wanted here, not a list or a block.")
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self._wrong(node, f"'{node.value}' cannot be read: {error}.") from error

    def _name(self, node: yaml.Node) -> str:
        value = self._scalar(node)
        if not isinstance(value, str) or not 1 <= len(value) <= 64:
            raise self._wrong(node, "'name' must be a text of 1 to 64 characters.")
        return value

    def _whole(self, node: yaml.Node, what: str, low: int, high: int) -> int:
        value = self._scalar(node)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(
                node, f"'{what}' must be a whole number from {low} to {high}, not {node.value!r}."
            )
        return value

    def _time(self, node: yaml.Node) -> int:
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            value = None
        if value is None or value.tzinfo is None:
            raise self._wrong(
                node, f"'start' must be a time with its zone, like 2018-01-01T00:00:00+08:00, not {text!r}."
            )
        return int(value.timestamp() * 1000)

    def _weights(self, node: yaml.Node, what: str, allowed: tuple[str, ...]) -> dict[str, float]:
        weights = {}
        for key, value_node in self._mapping(node, f"the {what} mix", allowed).items():
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
