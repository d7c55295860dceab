"""Pictures of the equipment's pages: a normal day, and each fault beside the healthy twin. Needs matplotlib
(the extra `docs`)."""

from __future__ import annotations

import io
import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from qilu_contract.catalogue.equipment import DIRECTIONS, EquipmentClass, Signal

from qilu_devices.noise import Values
from qilu_devices.twins import ONSET, Twins

_SOUND, _FAULTY, _SHADE = "#5b6b7b", "#c0392b", "#f6e3c5"
_COLOURS = 64  # of a picture: lines on white need no more
_COLUMNS = 2
_MAX_DAY = 8
_POINTS = 600
_METERS = ("energy_kWh", "co2_kg")


def draw_day(equipment: EquipmentClass, hours: Values, series: dict[str, Values], path: Path) -> None:
    """The class's first signals over a day. Raises OSError."""
    signals = [signal for signal in equipment.signals if signal.name not in _METERS][:_MAX_DAY]
    rows = math.ceil(len(signals) / _COLUMNS)
    figure = Figure(figsize=(9.0, 1.35 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, sharex=True, squeeze=False)
    thin = max(1, len(hours) // _POINTS)
    for place, axis in enumerate(axes.flat):
        if place < len(signals):
            _line(axis, signals[place], hours[::thin], series[signals[place].name][::thin], _SOUND)
            axis.set_xlim(0.0, 24.0)
            axis.set_xticks(range(0, 25, 4))
        else:
            axis.set_axis_off()
    for axis in axes[-1]:
        axis.set_xlabel("hour of the day", fontsize=8)
    _save(figure, path)


def draw_fault(equipment: EquipmentClass, twins: Twins, path: Path) -> None:
    """The signals of the fault's signature with (red) and without it (grey). Raises OSError."""
    shows, profile = twins.fault.shows, twins.profile
    figure = Figure(figsize=(9.0, 1.3 * len(shows) + 0.6), layout="constrained")
    axes: list[Axes] = list(figure.subplots(len(shows), 1, sharex=True, squeeze=False)[:, 0])
    onset, developed, repair = (twins.hours[step] for step in (ONSET, profile.developed, profile.repair))
    for axis, sign in zip(axes, shows, strict=True):
        signal = equipment.signal(sign.signal)
        axis.axvspan(onset, repair, color=_SHADE, lw=0)
        axis.axvline(developed, color="#d9b77e", lw=0.8, ls=":")
        _line(axis, signal, twins.hours, twins.faulty[sign.signal], _FAULTY)
        axis.plot(twins.hours, twins.sound[sign.signal], color=_SOUND, lw=0.9)
        axis.set_title(f"{sign.signal} ({signal.unit}): {DIRECTIONS[sign.direction]}", fontsize=8, loc="left")
    axes[0].text(
        1.0, 1.06, "shaded: from onset to repair; dotted: fully developed; grey: the healthy twin",
        transform=axes[0].transAxes, fontsize=6.5, ha="right",
    )  # fmt: skip
    axes[-1].set_xlabel("hours", fontsize=8)
    axes[-1].set_xlim(float(twins.hours[0]), float(twins.hours[-1]))
    _save(figure, path)


def _line(axis: Axes, signal: Signal, hours: Values, values: Values, colour: str) -> None:
    axis.plot(hours, signal.round_all(values.clip(signal.low, signal.high)), color=colour, lw=0.9)
    axis.set_title(f"{signal.name} ({signal.unit})", fontsize=8, loc="left")
    axis.tick_params(labelsize=7)
    axis.grid(visible=True, color="#e5e5e5", lw=0.5)
    axis.ticklabel_format(axis="y", useOffset=False)


def _save(figure: Figure, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    drawn.seek(0)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(path, optimize=True)
