"""Scenarios: YAML files that say what is simulated. A mistake is told with file, line and how to mend it."""

from __future__ import annotations

import hashlib
import math
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

MAX_UNITS = 10_000_000
"""The programme's own target; also what unit numbers of seven digits have room for."""

_KEYS = ("name", "units", "seed", "start", "classes", "cities")
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
            text=text,
        )

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
