"""Parser for the Templates and DataSets that a custom class declares (`own_classes.py`)."""

from __future__ import annotations

from collections.abc import Collection

import yaml

from qilu_contract.catalogue.equipment import INFORMATION, DataSetForm, Part, TemplateForm
from qilu_contract.catalogue.yaml_parser import YamlParser

MAX_NAME = 64
MAX_FORMS = 16


class FormsParser(YamlParser):
    """Every method raises ConfigError. `signals` are the class's; `taken` collects the names of metrics, the
    paths of members and columns, and the signals that have such a place."""

    def _templates(self, node: yaml.Node, signals: Collection[str], taken: set[str]) -> list[TemplateForm]:
        found: list[TemplateForm] = []
        for item in self._forms(node, "templates"):
            keys = ("metric", "definition", "members")
            entries = self._mapping(item, "a Template", keys, needed=keys)
            metric = self._metric(entries["metric"], signals, taken)
            definition = self._sparkplug_name(entries["definition"], "definition")
            if definition in {form.definition for form in found}:
                raise self._wrong(
                    entries["definition"], f"'{definition}' is given twice: choose another name."
                )
            parts = self._parts(metric, entries["members"], "members", signals, taken)
            found.append(TemplateForm(metric, definition, parts))
        return found

    def _data_sets(self, node: yaml.Node, signals: Collection[str], taken: set[str]) -> list[DataSetForm]:
        found: list[DataSetForm] = []
        for item in self._forms(node, "data_sets"):
            keys = ("metric", "time", "columns")
            entries = self._mapping(item, "a DataSet", keys, needed=keys)
            metric = self._metric(entries["metric"], signals, taken)
            time = self._sparkplug_name(entries["time"], "time")
            parts = self._parts(metric, entries["columns"], "columns", signals, taken)
            if time in {part.name for part in parts}:
                raise self._wrong(entries["time"], f"the column '{time}' holds the time: it is no signal.")
            found.append(DataSetForm(metric, time, parts))
        return found

    def _forms(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        nodes = self._list(node, f"'{what}'", " of lines '- metric: …'")
        if not 1 <= len(nodes) <= MAX_FORMS:
            raise self._wrong(node, f"'{what}' must have 1 to {MAX_FORMS} entries, not {len(nodes)}.")
        return nodes

    def _metric(self, node: yaml.Node, signals: Collection[str], taken: set[str]) -> str:
        name = self._sparkplug_name(node, "metric")
        if name in taken or name in signals:
            raise self._wrong(node, f"the name '{name}' is taken: choose another one.")
        if name.startswith(INFORMATION):
            raise self._wrong(node, f"'{name}' describes a device: metrics of this name hold no signals.")
        taken.add(name)
        return name

    def _sparkplug_name(self, node: yaml.Node, what: str) -> str:
        name = str(self._scalar(node))
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or not all(name.split("/")):
            raise self._wrong(
                node,
                f"'{what}' must be a name of 1 to {MAX_NAME} characters, with single / between its parts, "
                f"not {name[:70]!r}.",
            )
        return name

    def _parts(
        self, metric: str, node: yaml.Node, what: str, signals: Collection[str], taken: set[str]
    ) -> tuple[Part, ...]:
        if not isinstance(node, yaml.MappingNode) or not node.value:
            raise self._wrong(node, f"'{what}' must be lines of 'name: signal'.")
        parts: list[Part] = []
        for key, value in node.value:
            name = self._sparkplug_name(key, what)
            signal = str(self._scalar(value))
            if signal not in signals:
                raise self._wrong(value, f"'{signal}' is no signal: use one of {', '.join(signals)}.")
            if f"{metric}/{name}" in taken:
                raise self._wrong(key, f"'{metric}/{name}' is given twice: keep one.")
            if signal in taken:
                raise self._wrong(value, f"the signal '{signal}' has a place already: keep one.")
            taken |= {signal, f"{metric}/{name}"}
            parts.append(Part(name, signal))
        return tuple(parts)
