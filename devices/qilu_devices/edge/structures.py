"""Templates and DataSets of simulated units, as their class declares them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import DataSetForm, EquipmentClass, Part, Signal, TemplateForm
from qilu_contract.wire.sparkplug import DataType, Metric, Packed
from qilu_contract.wire.sparkplug_structures import pack_data_set, pack_template

_DATATYPES = {"float": DataType.FLOAT, "int": DataType.INT64, "bool": DataType.BOOLEAN}


def datatype(signal: Signal) -> DataType:
    return DataType.DOUBLE if signal.is_wide else _DATATYPES[signal.type]


def definitions(class_names: Iterable[str], ts_ms: int) -> list[Metric]:
    """The definitions of these classes' Templates, for the birth of an edge node. Their members are null."""
    return [
        Metric(form.definition, None, ts_ms, DataType.TEMPLATE, _definition(CATALOGUE[name], form, ts_ms))
        for name in dict.fromkeys(class_names)
        for form in CATALOGUE[name].templates
    ]


def _definition(equipment: EquipmentClass, form: TemplateForm, ts_ms: int) -> Packed:
    return pack_template(
        [Metric(part.name, None, ts_ms, datatype(equipment.signal(part.signal)), None) for part in form.parts]
    )


def fold(
    equipment: EquipmentClass, metrics: Sequence[tuple[Signal, Metric]], alias: int, *, birth: bool
) -> list[Metric]:
    """The metrics of a message, given one for each signal: signals that have a place in a Template or DataSet
    are put there. `alias`: the unit's first; a Template or DataSet has the alias of its first signal.
    `birth`: it has a name and datatypes, too."""
    own = {signal.name: metric for signal, metric in metrics}
    places = [signal.name for signal in equipment.signals]
    folded: list[Metric] = []
    for form in equipment.forms:
        held = [(part, own.pop(part.signal)) for part in form.parts if part.signal in own]
        if not held:
            continue
        if isinstance(form, TemplateForm):
            members = [metric._replace(name=part.name, alias=None) for part, metric in held]
            members.sort(key=lambda member: member.ts_ms or 0)
            value = pack_template(members, form.definition, datatypes=birth)
        else:
            value = _table(equipment, form, held)
        folded.append(
            Metric(
                form.metric if birth else None,
                alias + places.index(form.parts[0].signal),
                max(metric.ts_ms or 0 for _, metric in held),
                value.datatype,
                value,
                is_historical=held[0][1].is_historical,
            )
        )
    return [*own.values(), *folded]


def _table(equipment: EquipmentClass, form: DataSetForm, held: Sequence[tuple[Part, Metric]]) -> Packed:
    """One row for each time."""
    types = [
        DataType.STRING if isinstance(metric.value, str) else datatype(equipment.signal(part.signal))
        for part, metric in held
    ]
    times = sorted({metric.ts_ms or 0 for _, metric in held})
    rows = [
        [ts_ms, *(metric.value if metric.ts_ms == ts_ms else None for _, metric in held)] for ts_ms in times
    ]
    columns = [form.time, *(part.name for part, _ in held)]
    return pack_data_set(columns, [DataType.DATETIME, *types], rows)
