"""Custom equipment classes: a YAML file defines the signals and their behaviour.

Every service reads the same files, which the environment variable QILU_CLASSES names: a file, a folder of
them, or the manifest of a run that had them; several are parted as in PATH.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import yaml

from qilu_contract.catalogue.equipment import NO_SIGNALS, EquipmentClass, Signal, SignalType
from qilu_contract.catalogue.forms_parser import FormsParser
from qilu_contract.catalogue.yaml_parser import read_text
from qilu_contract.errors import ConfigError

VARIABLE = "QILU_CLASSES"

RESERVED = (
    "alarm",
    "dead_letter",
    "effectiveness",
    "security",
    "fleet",
    "generic",
    "milestone",
    "pipeline",
    "platform",
    "programme",
    "rollup",
)
"""Measurements that are no classes."""

MAX_NAME = 17
"""Maximum length of a class name, so that an id of 32 characters has room for county and number."""

MAX_SIGNALS = 64
_CLASS = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", re.ASCII)
_SIGNAL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}", re.ASCII)
_METERS = ("energy_kWh", "co2_kg")
_FAR = 1e12
_DAY_MS = 86_400_000
_RESOLUTIONS = (1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001, 0.000001)


@dataclass(frozen=True, slots=True)
class Follows:
    """`factor` times another signal, after a first-order lag of `lag_s` (0: at once)."""

    signal: str
    factor: float
    lag_s: float


@dataclass(frozen=True, slots=True)
class Counts:
    """A counter of another signal: `factor` times its value per hour, starting at 0."""

    signal: str
    factor: float


@dataclass(frozen=True, slots=True)
class Motion:
    """Behaviour of a signal: the sum of the given terms, within the signal's range; or a counter.

    `constant`: a number that each unit draws once, evenly between two. `daily`: half the daily swing, and the
    local hour of the highest value. `walk`: standard deviation and memory (s) of a first-order
    autoregression. `noise`: standard deviation of what changes from sample to sample. `at_work`: 0 while the
    shift calendar has the unit at rest.
    """

    signal: Signal
    constant: tuple[float, float]
    daily: tuple[float, float] | None
    walk: tuple[float, float] | None
    noise: float
    follows: tuple[Follows, ...]
    counts: Counts | None
    at_work: bool


@dataclass(frozen=True, slots=True)
class OwnClass:
    """A user's class: `motions` are in the order of the class's signals. `file` and `text` are where it came
    from."""

    equipment: EquipmentClass
    motions: tuple[Motion, ...]
    file: str
    text: str

    @property
    def sha256(self) -> str:
        """Fingerprint of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class ClassRecord(msgspec.Struct, frozen=True):
    """The file of a custom class in a run's manifest."""

    name: str
    file: str
    sha256: str
    text: str


class _Manifest(msgspec.Struct):
    classes: list[ClassRecord] = []


def load_own_classes(sources: str, built_in: Iterable[str]) -> list[OwnClass]:
    """The classes in `sources` (paths, parted as in PATH), in the order of their names. Raises ConfigError
    with the file, the line and the fix."""
    found: list[OwnClass] = []
    for path in map(Path, filter(None, sources.split(os.pathsep))):
        for file, text in _texts(path):
            taken = [*built_in, *(own.equipment.name for own in found)]
            found.append(parse_own_class(text, file, taken))
    definitions: dict[str, str] = {}
    for own in found:
        for form in own.equipment.templates:
            other = definitions.setdefault(form.definition, own.equipment.name)
            if other != own.equipment.name:  # an edge node may have units of both
                raise ConfigError(
                    f"{own.file}: the class '{other}' has a definition '{form.definition}' as well: "
                    "choose another name."
                )
    # A fleet draws among the classes in their order: it must not depend on the order of the files.
    return sorted(found, key=lambda own: own.equipment.name)


def parse_own_class(text: str, source: str, taken: Iterable[str] = ()) -> OwnClass:
    """The class in `text`; `source` names the file in messages, `taken` are the names that other classes
    have. Raises ConfigError."""
    return _Parser(source).parse(text, tuple(taken))


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    if path.is_dir():
        for file in sorted(path.glob("*.yaml")):
            yield str(file), read_text(file, "the class")
    elif path.suffix == ".json":
        try:
            manifest = msgspec.json.decode(read_text(path, "the manifest"), type=_Manifest)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path}: this is not the manifest of a run: {error}.") from error
        for record in manifest.classes:
            yield record.file, record.text
    else:
        mend = f"{VARIABLE} and --classes take a YAML file or a folder of them"
        yield str(path), read_text(path, "the class", mend)


class _Parser(FormsParser):
    def parse(self, text: str, taken: tuple[str, ...]) -> OwnClass:
        root = self._root(text, "the file is empty: give name, title and signals.")
        keys = ("name", "title", "title_zh", "signals", "templates", "data_sets")
        found = self._mapping(root, "a class", keys, needed=("name", "title", "signals"))
        name = self._class_name(found["name"], taken)
        title = self._text(found["title"], "title")
        title_zh = self._text(found["title_zh"], "title_zh") if "title_zh" in found else title
        nodes = self._list(found["signals"], "'signals'", " of lines '- name: …'")
        if not 1 <= len(nodes) <= MAX_SIGNALS:
            raise self._wrong(found["signals"], f"a class has 1 to {MAX_SIGNALS} signals, not {len(nodes)}.")
        motions: list[Motion] = []
        for node in nodes:
            motions.append(self._motion(node, motions))
        shortest = min(motion.signal.interval_s for motion in motions)
        for node, motion in zip(nodes, motions, strict=True):
            if motion.signal.interval_s % shortest:
                raise self._wrong(
                    node,
                    f"the interval of '{motion.signal.name}' must be a multiple of the class's shortest, "
                    f"which is {shortest} s.",
                )
        signals = tuple(motion.signal for motion in motions)
        names, taken_names = [signal.name for signal in signals], set[str]()
        templates = self._templates(found["templates"], names, taken_names) if "templates" in found else []
        data_sets = self._data_sets(found["data_sets"], names, taken_names) if "data_sets" in found else []
        equipment = EquipmentClass(
            name,
            title,
            title_zh,
            signals,
            (),
            stoppable=any(motion.at_work for motion in motions),
            templates=tuple(templates),
            data_sets=tuple(data_sets),
        )
        return OwnClass(equipment, tuple(motions), self._source, text)

    def _class_name(self, node: yaml.Node, taken: tuple[str, ...]) -> str:
        name = str(self._scalar(node))
        if not _CLASS.fullmatch(name) or len(name) > MAX_NAME:
            raise self._wrong(
                node,
                f"'name' must be 1 to {MAX_NAME} of a-z, 0-9 and single _ between them, beginning with a "
                f"letter, not {name[:40]!r}.",
            )
        for other in (*taken, *RESERVED):
            if name == other:
                raise self._wrong(node, f"the name '{name}' is taken: choose another one.")
            # Units lie in the order of their ids, county-class-number: no class may begin like another.
            if name.startswith(other + "_") or other.startswith(name + "_"):
                raise self._wrong(
                    node,
                    f"the name '{name}' cannot be distinguished from '{other}' in units' ids: "
                    "choose another one.",
                )
        return name

    def _motion(self, node: yaml.Node, before: list[Motion]) -> Motion:
        keys = ("name", "unit", "type", "range", "resolution", "interval", "at_work", "value")
        found = self._mapping(node, "a signal", keys, needed=("name", "unit", "range", "interval", "value"))
        name = self._signal_name(found["name"], before)
        type_ = self._choice(found["type"], "type", get_args(SignalType)) if "type" in found else "float"
        low, high, resolution = self._scale(found, type_)
        interval_ms = self._duration(found["interval"], "interval")
        if interval_ms % 1000 or not 1000 <= interval_ms <= 30 * _DAY_MS:
            raise self._wrong(found["interval"], "'interval' must be whole seconds, from 1s to 30d.")
        parts = self._mapping(
            found["value"], "'value'", ("constant", "daily", "walk", "noise", "follows", "counts")
        )
        if not parts:
            raise self._wrong(found["value"], "'value' is empty: give constant, follows or counts.")
        known = {motion.signal.name: motion.signal.nominal for motion in before}
        constant = self._constant(parts["constant"]) if "constant" in parts else (0.0, 0.0)
        follows = self._follows(parts["follows"], tuple(known)) if "follows" in parts else ()
        counts = self._counts(parts["counts"], tuple(known)) if "counts" in parts else None
        at_work = "at_work" in found and self._choice_of_bool(found["at_work"])
        if counts is not None and (len(parts) > 1 or at_work or type_ == "bool" or low != 0.0):
            raise self._wrong(
                parts["counts"],
                f"a counter has no other terms: remove all keys but 'counts' from '{name}', and let its "
                "range begin at 0.",
            )
        if counts is None and name in _METERS:
            raise self._wrong(found["value"], f"'{name}' is a meter, which only grows: give 'counts'.")
        nominal = sum(constant) / 2 + sum(each.factor * known[each.signal] for each in follows)
        return Motion(
            signal=Signal(
                name=name,
                unit=self._unit(found["unit"]),
                type=type_,  # type: ignore[arg-type]  # `_choice` gives one of them
                resolution=resolution,
                nominal=round(min(max(nominal, low), high), 6),
                low=low,
                high=high,
                interval_s=interval_ms // 1000,
                per_event="",
                mark="A",
                source=Path(self._source).name,
            ),
            constant=constant,
            daily=self._daily(parts["daily"]) if "daily" in parts else None,
            walk=self._walk(parts["walk"]) if "walk" in parts else None,
            noise=self._number(parts["noise"], "noise", 0.0, _FAR) if "noise" in parts else 0.0,
            follows=follows,
            counts=counts,
            at_work=at_work,
        )

    def _signal_name(self, node: yaml.Node, before: list[Motion]) -> str:
        name = str(self._scalar(node))
        if not _SIGNAL.fullmatch(name) or name.lower() in NO_SIGNALS:
            raise self._wrong(
                node,
                f"a signal's name is a letter and up to 39 letters, digits and _, and none of "
                f"{', '.join(NO_SIGNALS)}, not {name[:50]!r}.",
            )
        if name.lower() in {motion.signal.name.lower() for motion in before}:
            raise self._wrong(node, f"the signal '{name}' is there already: name it otherwise.")
        return name

    def _scale(self, found: Mapping[str, yaml.Node], type_: str) -> tuple[float, float, float]:
        """Range and resolution."""
        low, high = self._pair(found["range"], "range")
        if not low < high or (type_ == "bool" and (low, high) != (0.0, 1.0)):
            mend = "[0, 1] for a bool" if type_ == "bool" else "the lower bound first, then the higher"
            raise self._wrong(found["range"], f"'range' must be {mend}.")
        resolution = 1.0
        if "resolution" in found:
            resolution = self._number(found["resolution"], "resolution", 0.0, 1.0)
        allowed = _RESOLUTIONS if type_ == "float" else _RESOLUTIONS[:1]
        if resolution not in allowed:
            raise self._wrong(
                found["resolution"],
                f"'resolution' must be one of {', '.join(f'{step:.7g}' for step in allowed)} for a {type_}.",
            )
        return low, high, resolution

    def _unit(self, node: yaml.Node) -> str:
        unit = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if not 1 <= len(unit) <= 32 or not unit.isprintable():
            raise self._wrong(node, "'unit' must be a text of 1 to 32 characters, \"1\" where there is none.")
        return unit

    def _choice_of_bool(self, node: yaml.Node) -> bool:
        value = self._scalar(node)
        if not isinstance(value, bool):
            raise self._wrong(node, f"'at_work' must be true or false, not {node.value!r}.")
        return value

    def _pair(self, node: yaml.Node, what: str) -> tuple[float, float]:
        items = self._list(node, f"'{what}'", " of two numbers, like [0, 100]")
        if len(items) != 2:
            raise self._wrong(node, f"'{what}' must be two numbers, like [0, 100].")
        low, high = (self._number(item, what, -_FAR, _FAR) for item in items)
        return low, high

    def _constant(self, node: yaml.Node) -> tuple[float, float]:
        if isinstance(node, yaml.SequenceNode):
            low, high = self._pair(node, "constant")
            if low > high:
                raise self._wrong(node, "'constant' must be one number, or a lower and a higher one.")
            return low, high
        value = self._number(node, "constant", -_FAR, _FAR)
        return value, value

    def _daily(self, node: yaml.Node) -> tuple[float, float]:
        found = self._mapping(node, "'daily'", ("swing", "peak"), needed=("swing", "peak"))
        peak_ms = self._duration(found["peak"], "peak")
        if peak_ms >= _DAY_MS:
            raise self._wrong(
                found["peak"], "'peak' must be a time of day as hours after midnight, like 15h."
            )
        return self._number(found["swing"], "swing", 0.0, _FAR), peak_ms / 3_600_000

    def _walk(self, node: yaml.Node) -> tuple[float, float]:
        found = self._mapping(node, "'walk'", ("sd", "memory"), needed=("sd", "memory"))
        memory_ms = self._duration(found["memory"], "memory")
        if memory_ms <= 0:
            raise self._wrong(found["memory"], "'memory' must be more than 0.")
        return self._number(found["sd"], "sd", 0.0, _FAR), memory_ms / 1000

    def _follows(self, node: yaml.Node, known: tuple[str, ...]) -> tuple[Follows, ...]:
        found = []
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            entries = self._mapping(
                item, "'follows'", ("signal", "factor", "lag"), needed=("signal", "factor")
            )
            lag_ms = self._duration(entries["lag"], "lag") if "lag" in entries else 0
            factor = self._number(entries["factor"], "factor", -_FAR, _FAR)
            found.append(Follows(self._earlier(entries["signal"], known), factor, lag_ms / 1000))
        return tuple(found)

    def _counts(self, node: yaml.Node, known: tuple[str, ...]) -> Counts:
        entries = self._mapping(node, "'counts'", ("signal", "factor"), needed=("signal",))
        factor = self._number(entries["factor"], "factor", 0.0, _FAR) if "factor" in entries else 1.0
        return Counts(self._earlier(entries["signal"], known), factor)

    def _earlier(self, node: yaml.Node, known: tuple[str, ...]) -> str:
        name = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
        if name not in known:
            there = f"one of {', '.join(known)}" if known else "put the signal that it names above it"
            raise self._wrong(node, f"'{name}' is no signal above this one: use {there}.")
        return name
