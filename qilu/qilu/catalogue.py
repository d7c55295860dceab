"""The equipment catalogue as tables for a terminal and as data for programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from qilu_contract.catalogue.classes import EquipmentClass
from qilu_contract.catalogue.equipment import MARKS
from rich.console import JustifyMethod, RenderableType
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from qilu_devices.totals import ClassTotal, Figure

_SIGNAL_FIELDS = ("name", "unit", "type", "low", "high", "interval_s", "mark")
_FAULT_FIELDS = ("name", "signature", "source")


def as_data(classes: Iterable[EquipmentClass]) -> list[dict[str, object]]:
    """The catalogue in the format of `--json`."""
    return [
        {
            "class": class_.name,
            "signals": [
                {field: getattr(signal, field) for field in _SIGNAL_FIELDS} for signal in class_.signals
            ],
            "faults": [{field: getattr(fault, field) for field in _FAULT_FIELDS} for fault in class_.faults],
        }
        for class_ in classes
    ]


def tables(classes: Iterable[EquipmentClass]) -> Iterator[RenderableType]:
    """Tables of signals, set points and faults of each class, and the meaning of the marks."""
    for class_ in classes:
        title = f"{class_.title} {class_.title_zh} ({class_.name})"
        yield _table(
            title,
            {
                "signal": [signal.name for signal in class_.signals],
                "unit": [signal.unit for signal in class_.signals],
                "type": [signal.type for signal in class_.signals],
                "range": [f"{signal.low:g} … {signal.high:g}" for signal in class_.signals],
                "step": [f"{signal.resolution:g}" for signal in class_.signals],
                "every": [
                    f"{signal.interval_s} s" + (f", {signal.per_event}" if signal.per_event else "")
                    for signal in class_.signals
                ],
                "mark": [signal.mark for signal in class_.signals],
                "source": [signal.source for signal in class_.signals],
            },
        )
        if class_.set_points:
            yield _table(
                f"Set points of class {class_.name}",
                {
                    "set point": [point.name for point in class_.set_points],
                    "what": [point.title for point in class_.set_points],
                    "unit": [point.unit for point in class_.set_points],
                    "range": [f"{point.low:g} … {point.high:g}" for point in class_.set_points],
                    "mark": [point.mark for point in class_.set_points],
                },
            )
        if class_.faults:
            yield _table(
                f"Faults of class {class_.name}",
                {
                    "fault": [fault.name for fault in class_.faults],
                    "signature": [fault.signature for fault in class_.faults],
                    "mark": [fault.mark for fault in class_.faults],
                    "source": [fault.source for fault in class_.faults],
                },
            )
    yield "Marks: " + ", ".join(f"{mark} {meaning}" for mark, meaning in MARKS.items()) + "."


def _table(title: str, columns: dict[str, list[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in columns:
        justify: JustifyMethod = "right" if heading in ("range", "step", "every") else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in ("signal", "fault"), overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(escape, row))
    return table


def totals_tables(classes: Sequence[ClassTotal], sums: Sequence[Figure]) -> Iterator[RenderableType]:
    """Tables of a scaled fleet by class, and its totals beside the province's figures."""
    yield _table(
        "A fleet of 10,000,000 units",
        {
            "class": [each.name for each in classes],
            "units": [f"{each.units:,}" for each in classes],
            "mean kW": [f"{each.mean_kw:,.1f}" for each in classes],
            "CO2 kg/h": [f"{each.mean_co2_kg_h:,.1f}" for each in classes],
        },
    )
    yield _table(
        "A year",
        {
            "sum": [each.name for each in sums],
            "fleet": [f"{each.value:,.1f}" for each in sums],
            "held within": [f"{each.low:g} … {each.high:g}" for each in sums],
            "mark": [each.mark for each in sums],
            "reference": [each.reference for each in sums],
        },
    )
