"""`qilu score`: scores of a fault detector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from qilu_contract.errors import ConfigError

from qilu import flags
from qilu.commands.options import Json
from qilu.output import console, print_json

if TYPE_CHECKING:
    from qilu_devices.detection.scoring import Score


def score(
    truth: Annotated[Path, typer.Option(help="faults.parquet of an export or a run")],
    detections: Annotated[
        Path | None,
        typer.Argument(help="CSV or Parquet: unit, start and end (or time), and fault if known"),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of the export: score simple detectors over it, too")
    ] = None,
    tolerance: Annotated[
        str, typer.Option(help="How long before a fault is visible, or after its end, an alarm is not false")
    ] = "10m",
    as_json: Json = False,
) -> None:
    """Score the alarms of a fault detector against the ground truth.

    Prints precision, recall, F1, detection delay (hours), and false alarms per unit and day. With --baseline,
    all detectors are scored after the first quarter of the data, in which the baselines learn.

    Example: qilu score alarms.csv --truth data/faults.parquet --baseline data
    """
    if detections is None and baseline is None:
        raise ConfigError("There is nothing to score: give a file of detections, or --baseline.")
    tolerance_ms = round(flags.duration_s(tolerance) * 1000)
    from qilu_devices.detection.alarms import load_alarms
    from qilu_devices.detection.scoring import load_truth
    from qilu_devices.detection.scoring import score as judge

    from qilu.progress import unit_bar

    known = load_truth(truth)
    alarms = None if detections is None else load_alarms(detections)
    rest = known
    found: dict[str, tuple[Score, float | None]] = {}
    if baseline is not None:
        from qilu_devices.detection.baselines import learnt_ms, run_baselines

        rest = known.after(learnt_ms(known))
        with unit_bar(console(), "baselines") as shown:
            for each in run_baselines(baseline, known, tolerance_ms, shown):
                found[each.name] = each.score, each.k
    if alarms is not None:
        found = {"detections": (judge(alarms, rest, tolerance_ms), None), **found}
    if as_json:
        scores = {name: each.as_dict() | {"k": k} for name, (each, k) in found.items()}
        print_json(
            {"from_ms": rest.start_ms, "until_ms": rest.until_ms, "units": rest.units, "scores": scores}
        )
    else:
        _show(found)


def _show(found: dict[str, tuple[Score, float | None]]) -> None:
    from rich.table import Table

    table = Table()
    table.add_column("", no_wrap=True)
    headings = ("k", "precision", "recall", "F1", "median delay", "false alarms/unit/day", "found", "faults")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, (each, k) in found.items():
        table.add_row(
            name,
            "" if k is None else f"{k:g}",
            *(f"{figure:.3f}" for figure in (each.precision, each.recall, each.f1)),
            "" if each.delay_median_s is None else f"{each.delay_median_s / 3600:.2f} h",
            f"{each.false_alarms_per_unit_day:.3f}",
            f"{each.found:,}",
            f"{each.faults:,}",
        )
    console().print(table)
