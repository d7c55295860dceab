"""Parser for hand-written YAML files, node by node: errors name the line and the fix."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from qilu_contract.durations import duration_ms
from qilu_contract.errors import ConfigError
from qilu_contract.readings import MIN_TIME_MS

_Loaded = TypeVar("_Loaded")


def read_text(path: Path, what: str, mend: str = "") -> str:
    """Read a file; `what` describes it, and the last argument is the advice if it cannot be read. Raises
    ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        then = f" ({error.strerror}): {mend}" if mend else f": {error.strerror}"
        raise ConfigError(f"{path}: {what} cannot be read{then}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {what} is not UTF-8 text: save it as UTF-8.") from error


class YamlParser:
    """Base of the parsers of such files. `source` names the file in messages. Every method raises
    ConfigError."""

    def __init__(self, source: str) -> None:
        self._source = source

    def _wrong(self, node: yaml.Node | int, sentence: str) -> ConfigError:
        line = node if isinstance(node, int) else node.start_mark.line + 1
        return ConfigError(f"{self._source}, line {line}: {sentence}")

    def _root(self, text: str, when_empty: str) -> yaml.Node:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else 1
            raise self._wrong(
                line, f"this is not YAML ({error.problem}): fix this line or the one above."
            ) from error
        except (yaml.YAMLError, RecursionError) as error:
            raise self._wrong(1, f"this is not YAML: {str(error).splitlines()[0]}.") from error
        if root is None:
            raise self._wrong(1, when_empty)
        return root

    def _mapping(
        self,
        node: yaml.Node,
        what: str,
        allowed: tuple[str, ...],
        needed: tuple[str, ...] = (),
        hint: str = "",
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, f"{what} must be lines of 'key: value'.")
        found: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key not in allowed:
                raise self._wrong(key_node, f"{what} has no '{key}': use one of {', '.join(allowed)}{hint}.")
            if key in found:
                raise self._wrong(key_node, f"'{key}' is given twice: keep one.")
            found[key] = value_node
        missing = [key for key in needed if key not in found]
        if missing:
            raise self._wrong(node, f"{what} lacks {', '.join(missing)}: give a value for each.")
        return found

    def _list(self, node: yaml.Node, what: str, like: str) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            raise self._wrong(node, f"{what} must be a list{like}.")
        return list(node.value)

    def _scalar(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self._wrong(node, "a single value is wanted here, not a list or a block.")
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise self._wrong(node, f"'{node.value}' cannot be read: {error}.") from error

    def _text(self, node: yaml.Node, what: str) -> str:
        value = self._scalar(node)
        if not isinstance(value, str) or not 1 <= len(value) <= 64:
            raise self._wrong(node, f"'{what}' must be a text of 1 to 64 characters.")
        return value

    def _name(self, node: yaml.Node) -> str:
        return self._text(node, "name")

    def _choice(self, node: yaml.Node, what: str, allowed: tuple[str, ...]) -> str:
        value = self._scalar(node)
        if value not in allowed:
            raise self._wrong(node, f"'{what}' must be one of {', '.join(allowed)}, not {node.value!r}.")
        return str(value)

    def _whole(self, node: yaml.Node, what: str, low: int, high: int) -> int:
        value = self._scalar(node)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(
                node, f"'{what}' must be a whole number from {low} to {high}, not {node.value!r}."
            )
        return value

    def _number(self, node: yaml.Node, what: str, low: float, high: float) -> float:
        value = self._scalar(node)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high:
            raise self._wrong(
                node, f"'{what}' must be a number from {low:g} to {high:g}, not {node.value!r}."
            )
        return float(value)

    def _duration(self, node: yaml.Node, what: str) -> int:
        """Milliseconds."""
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        try:
            return duration_ms(text)
        except ValueError as error:
            raise self._wrong(
                node, f"'{what}' must be a duration like 90s, 10m, 2h or 3d, not {text!r}."
            ) from error

    def _time(self, node: yaml.Node) -> int:
        """Milliseconds since 1970, UTC."""
        text = node.value if isinstance(node, yaml.ScalarNode) else ""
        try:
            value = datetime.fromisoformat(text)
        except ValueError:
            value = None
        if value is None or value.tzinfo is None:
            raise self._wrong(
                node, f"'start' must be a time with its zone, like 2018-01-01T00:00:00+08:00, not {text!r}."
            )
        found_ms = int(value.timestamp() * 1000)
        if found_ms < MIN_TIME_MS:
            raise self._wrong(node, f"'start' lies before 2001-09-09, which no gateway believes: {text!r}.")
        return found_ms

    def _given(
        self,
        found: dict[str, yaml.Node],
        root: yaml.Node,
        key: str,
        read: Callable[[yaml.Node], _Loaded],
        mend: str,
    ) -> _Loaded:
        """The value at `key`, which is required."""
        if key not in found:
            raise self._wrong(root, f"'{key}' is missing: add {mend}.")
        return read(found[key])
