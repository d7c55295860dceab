"""Templates and DataSets of devices: signals in the forms that their class declares.

`opened` parses them while a message is decoded. Which signals they hold is known once the unit's class is:
`flatten` then turns a reading that has any into readings of signals. Undeclared ones are left out like
unknown signals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import EquipmentClass
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading
from qilu_contract.wire import sparkplug
from qilu_contract.wire.sparkplug import GOOD, QUALITY, Metric, Packed, Unreadable
from qilu_contract.wire.sparkplug_structures import DataSet, Template, unpack

Remarker = Callable[[Remark, str], None]


class Forms(NamedTuple):
    """Templates and DataSets that a class declares."""

    definitions: Mapping[str, str]
    """Of its Templates, by the name of the metric."""
    times: Mapping[str, str]
    """Time columns of its DataSets, by the name of the metric."""
    signals: Mapping[str, str]
    """Signals by the paths of members and columns, which begin with the name of the metric."""


def forms_of(class_: EquipmentClass) -> Forms:
    return Forms(
        {form.metric: form.definition for form in class_.templates},
        {form.metric: form.time for form in class_.data_sets},
        {f"{form.metric}/{part.name}": part.signal for form in class_.forms for part in form.parts},
    )


FORMS = {name: forms for name, class_ in CATALOGUE.items() if (forms := forms_of(class_)).signals}
"""By class, of those that declare any."""
_NO_FORMS = Forms({}, {}, {})


def opened(metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics of a birth, with Templates and DataSets parsed."""
    return [open_metric(metric.name or "", metric) for metric in metrics]


def open_metric(name: str, metric: Metric) -> Metric:
    if isinstance(metric.value, Packed):
        return metric._replace(value=unpack(metric.value, name))  # type: ignore[arg-type]  # until `flatten`
    return metric


def with_members(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """Metrics of a birth, and the members of Templates, whose aliases and datatypes data may rely on."""
    for metric in metrics:
        yield metric
        if isinstance(metric.value, Template):
            yield from metric.value.members


def reason_to_omit(name: str | None, metric: Metric) -> tuple[Remark, str] | None:
    """Why the value of a metric that is not null is not stored."""
    if metric.is_transient:
        return Remark.TRANSIENT, f"{name!r:.60} is transient: its sender wants it not to be stored"
    quality = metric.properties.get(QUALITY, GOOD)
    if quality != GOOD:
        return Remark.BAD_QUALITY, f"{name!r:.60} has the quality {quality!r:.40}, and only {GOOD} is good"
    return None


def signal_names(class_name: str, units: Mapping[str, str]) -> dict[str, str]:
    """Units of measurement by signal, of those by metric or path."""
    signals = FORMS.get(class_name, _NO_FORMS).signals
    return {signals.get(name, name): unit for name, unit in units.items()}


def has_structures(readings: Sequence[Reading]) -> bool:
    return any(isinstance(value, Template | DataSet) for each in readings for value in each.values.values())


def flatten_all(class_name: str, readings: Sequence[Reading], remark: Remarker) -> list[Reading | BadReading]:
    """`flatten` for each reading of a unit of this class."""
    forms = FORMS.get(class_name, _NO_FORMS)
    return [each for reading in readings for each in flatten(forms, reading, remark)]


def flatten(forms: Forms, reading: Reading, remark: Remarker) -> Iterator[Reading | BadReading]:
    """The readings of a reading with Templates or DataSets: by the times of members and rows. Values of one
    time make one reading. Rows without a time, or with the wrong number of elements, are refused."""
    by_time: dict[int, dict[str, Any]] = {}
    for name, value in reading.values.items():
        if isinstance(value, Template):
            for ts_ms, signal, content in _of_template(forms, name, reading.ts_ms, value, remark):
                by_time.setdefault(ts_ms, {})[signal] = content
        elif isinstance(value, DataSet) and name in forms.times:
            for row in _of_data_set(forms, name, value):
                if isinstance(row, BadReading):
                    yield row
                else:
                    by_time.setdefault(row.ts_ms, {}).update(row.values)
        elif isinstance(value, DataSet):
            other = Unreadable("a DataSet that its class does not declare")
            by_time.setdefault(reading.ts_ms, {})[name] = other
        else:
            by_time.setdefault(reading.ts_ms, {})[name] = value
    for ts_ms, values in by_time.items():
        yield Reading(reading.unit, ts_ms, values)


def _of_template(
    forms: Forms, name: str, ts_ms: int, template: Template, remark: Remarker
) -> Iterator[tuple[int, str, Any]]:
    """Time, signal and value of each member; of the Template itself if the class does not declare it."""
    declared = forms.definitions.get(name)
    if declared is None:
        yield ts_ms, name, Unreadable("a Template that its class does not declare")
    elif template.is_definition:
        yield ts_ms, name, Unreadable("a definition, which belongs in the birth of the edge node")
    elif template.definition != declared:
        is_of = f"an instance of {template.definition!r:.60}, and its class declares {declared!r:.60}"
        yield ts_ms, name, Unreadable(is_of)
    else:
        for member in template.members:
            path, value = member.name or "", member.value
            if value is None:
                continue
            if type(value) is int and not member.datatype:
                value = sparkplug.integer(value, member.datatype)
            if omitted := reason_to_omit(path, member):
                remark(*omitted)
            else:
                at_ms = ts_ms if member.ts_ms is None else member.ts_ms
                yield at_ms, forms.signals.get(path, path), value


def _of_data_set(forms: Forms, name: str, table: DataSet) -> Iterator[Reading | BadReading]:
    time = forms.times[name]
    if time not in table.columns:
        no_time = BadReading(Reason.BAD_TIMESTAMP, f"{name!r:.60} has no column {time!r:.60} with the times")
        yield from [no_time] * len(table.rows)
        return
    at = table.columns.index(time)
    paths = [f"{name}/{column}" for column in table.columns]
    signals = [forms.signals.get(path, path) for path in paths]
    for row in table.rows:
        if isinstance(row, Unreadable):
            yield BadReading(Reason.BAD_PAYLOAD, f"{name!r:.60} has {row.detail}")
        elif type(ts_ms := row[at]) is not int:
            said = ts_ms.detail if isinstance(ts_ms, Unreadable) else f"{ts_ms!r:.40}"
            yield BadReading(Reason.BAD_TIMESTAMP, f"a row of {name!r:.60} has the time {said}")
        else:
            values = {
                signal: value
                for column, (signal, value) in enumerate(zip(signals, row, strict=True))
                if column != at and value is not None
            }
            if values:
                yield Reading("", ts_ms, values)  # type: ignore[arg-type]  # `check` refuses other types
