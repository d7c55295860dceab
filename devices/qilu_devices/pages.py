"""Generator of the equipment pages, from the catalogue and the kernels' docstrings: `qilu devices catalogue
--write docs/equipment`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from qilu_contract.catalogue.classes import CATALOGUE, OWN, EquipmentClass
from qilu_contract.catalogue.equipment import DIRECTIONS, MARKS, Fault
from qilu_contract.errors import ConfigError

from qilu_devices.classes import KERNELS
from qilu_devices.twins import SEED, day, twins

INDEX = "README.md"
DAY = "day.png"
_EQUATIONS = "Equations::"


def page_name(equipment: EquipmentClass) -> str:
    return f"{equipment.name.replace('_', '-')}.md"


def picture_name(fault: Fault) -> str:
    return f"{fault.name.replace('_', '-')}.png"


def texts(classes: Iterable[EquipmentClass]) -> dict[str, str]:
    """File names and contents of the pages, deterministic. The whole catalogue has an index."""
    chosen = list(classes)
    pages = {page_name(equipment): "\n".join(_page(equipment)) + "\n" for equipment in chosen}
    if len(chosen) == len(CATALOGUE):
        pages[INDEX] = "\n".join(_index(chosen)) + "\n"
    return pages


def write_pages(folder: Path, classes: Iterable[EquipmentClass]) -> Iterator[Path]:
    """Write pages and pictures into `folder`, which is made if it is missing; gives each file once it is
    there. Raises ConfigError when it cannot."""
    try:
        from qilu_devices.pictures import draw_day, draw_fault
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Pictures need {error.name}, which is not installed: pip install 'clouds-in-qilu[docs]'."
        ) from error
    chosen = list(classes)
    try:
        for name, text in texts(chosen).items():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            yield folder / name
        for equipment in chosen:
            pictures = folder / equipment.name.replace("_", "-")
            pictures.mkdir(exist_ok=True)
            draw_day(equipment, *day(equipment), pictures / DAY)
            yield pictures / DAY
            for fault in equipment.faults:
                path = pictures / picture_name(fault)
                draw_fault(equipment, twins(equipment, fault), path)
                yield path
    except OSError as error:
        raise ConfigError(
            f"{folder}: the pages cannot be written: {error.strerror}: give another folder."
        ) from error


def _index(classes: list[EquipmentClass]) -> Iterator[str]:
    yield "# Equipment"
    yield ""
    yield (
        "The simulated equipment classes, made from the code by "
        "`qilu devices catalogue --write docs/equipment`; `qilu devices catalogue` prints the same tables. "
        "Custom classes: [own-classes.md](../own-classes.md)."
    )
    yield ""
    yield from _table(
        ("class", "", "signals", "sampled every", "faults"),
        (
            (
                f"[{each.title}]({page_name(each)}) {each.title_zh}",
                f"`{each.name}`",
                str(len(each.signals)),
                f"{each.base_interval_s} s at the shortest",
                ", ".join(fault.title.split(":")[0] for fault in each.faults),
            )
            for each in classes
        ),
    )
    yield ""
    yield from _marks()


def _marks() -> Iterator[str]:
    yield "Marks: " + "; ".join(f"**{mark}** {meaning}" for mark, meaning in MARKS.items()) + "."


def _page(equipment: EquipmentClass) -> Iterator[str]:
    pictures = equipment.name.replace("_", "-")
    words, equations = _words(equipment.name)
    yield f"# {equipment.title} {equipment.title_zh}"
    yield ""
    yield f"Class `{equipment.name}`. [All classes]({INDEX})"
    yield ""
    yield words
    yield ""
    yield "## Signals"
    yield ""
    yield from _table(
        ("signal", "unit", "type", "range", "step", "every", "mark", "source"),
        (
            (
                f"`{signal.name}`",
                signal.unit,
                signal.type,
                f"{signal.low:g} … {signal.high:g}",
                f"{signal.resolution:g}",
                f"{signal.interval_s} s" + (f", set by each {signal.per_event}" if signal.per_event else ""),
                signal.mark,
                signal.source,
            )
            for signal in equipment.signals
        ),
    )
    yield ""
    yield from _marks()
    yield ""
    yield from _commands(equipment)
    yield "## Equations"
    yield ""
    yield "```text"
    yield equations
    yield "```"
    yield ""
    yield "## A normal day"
    yield ""
    yield f"One unit on a Monday in October (seed {SEED}); the first signals of the class."
    yield ""
    yield f"![A normal day of one unit]({pictures}/{DAY})"
    if equipment.faults:
        yield from _faults(equipment, pictures)


def _commands(equipment: EquipmentClass) -> Iterator[str]:
    switches = (
        "Start and stop, and set points" if equipment.stoppable else "Not start and stop, but set points"
    )
    if not equipment.set_points:
        return
    yield "## Commands"
    yield ""
    yield f"{switches}; see [commands](../commands.md)."
    yield ""
    yield from _table(
        ("set point", "what", "unit", "range", "mark", "source"),
        (
            (
                f"`{point.name}`",
                point.title,
                point.unit,
                f"{point.low:g} … {point.high:g}",
                point.mark,
                point.source,
            )
            for point in equipment.set_points
        ),
    )
    yield ""


def _faults(equipment: EquipmentClass, pictures: str) -> Iterator[str]:
    yield ""
    yield "## Faults"
    yield ""
    yield (
        "Hours between two faults of one unit, until a fault is fully developed, and from there to the "
        "repair are assumed (A)."
    )
    yield ""
    yield from _table(
        ("fault", "signature", "mark", "source", "between, h", "develops, h", "repaired after, h"),
        (
            (
                f"[`{fault.name}`](#{fault.name.replace('_', '-')})" + (" (winter)" if fault.season else ""),
                fault.signature,
                fault.mark,
                fault.source,
                f"{fault.mean_hours_between:g}",
                f"{fault.develop_h:g}",
                f"{fault.repair_h:g}",
            )
            for fault in equipment.faults
        ),
    )
    yield ""
    yield (
        f"The pictures show one unit with the fault beside itself without it (seed {SEED}); what takes days "
        "is drawn together into hours."
    )
    for fault in equipment.faults:
        yield ""
        yield f"### {fault.name.replace('_', '-')}"
        yield ""
        signs = ", ".join(f"`{sign.signal}` {DIRECTIONS[sign.direction]}" for sign in fault.shows)
        yield f"{fault.title}: {fault.signature}. In the signals: {signs}."
        yield ""
        yield f"![{fault.title}]({pictures}/{picture_name(fault)})"


def _words(name: str) -> tuple[str, str]:
    """Description of a kernel: its module's docstring, and its equations."""
    made = KERNELS[name]
    kernel = made.func if isinstance(made, partial) else made
    module = inspect.getdoc(sys.modules[kernel.__module__]) or ""
    _, _, equations = (inspect.getdoc(kernel) or "").partition(_EQUATIONS)
    words = module.partition("Marks of constants")[0].rstrip().replace("\n", " ").replace("  ", "\n\n")
    if name in OWN:
        words = f"From the file {Path(OWN[name].file).name}."
    return words, inspect.cleandoc(equations)


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    titles = list(headings)
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
