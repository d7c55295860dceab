"""Inline SVG: curves with bands, bars, the map. Colours come from the CSS of the page, so that one drawing
works in light and dark mode. Pure functions from numbers to text; every text is escaped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from qilu_programme.draws import Values
from qilu_programme.months import LABELS, MONTHS

_WIDTH, _HEIGHT = 720.0, 330.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 16.0, 18.0, 30.0

_SHADES = 6
_NUDGE = {
    "370100": (-6, 12),
    "370200": (2, -4),
    "370300": (2, 26),
    "370400": (-6, 0),
    "370500": (-4, -14),
    "370600": (-34, -18),
    "370800": (-10, 0),
    "371100": (4, 4),
    "371300": (-8, 0),
    "371600": (4, -2),
}
"""Offsets of labels that would overlap a border or a neighbour, in map units, as on the console's map."""


def short(value: float) -> str:
    """A number in short form: `1.2M`, `340k`, `12`."""
    if abs(value) >= 999_500:
        return f"{value / 1e6:.3g}M"
    if abs(value) >= 9_950:
        return f"{value / 1e3:.3g}k"
    return f"{value:,.0f}"


def _steps(top: float) -> list[float]:
    """Round gridlines from 0 to at least `top`."""
    raw = max(top, 1.0) / 4.0
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    return [step * index for index in range(math.ceil(top / step) + 1)]


def _points(values: Iterable[float], scale: float) -> list[str]:
    width = _WIDTH - _LEFT - _RIGHT
    bottom = _HEIGHT - _BOTTOM
    return [
        f"{_LEFT + width * month / (MONTHS - 1):.1f} {bottom - value * scale:.1f}"
        for month, value in enumerate(values)
    ]


def curve(
    title: str,
    median: Values,
    band: tuple[Values, Values],
    target: float,
    runs: Sequence[Sequence[float]],
    known: Mapping[str, float],
) -> str:
    """A count by month: median, band, single runs, the target as a line, known figures as dots."""
    top = max(float(band[1].max()), target) * 1.04
    steps = _steps(top)
    scale = (_HEIGHT - _TOP - _BOTTOM) / steps[-1]
    bottom = _HEIGHT - _BOTTOM
    width = _WIDTH - _LEFT - _RIGHT
    parts = [
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(title)}">',
    ]
    for value in steps:
        y = bottom - value * scale
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
        )
    for month, name in enumerate(LABELS):
        if name.endswith("-01"):
            x = _LEFT + width * month / (MONTHS - 1)
            parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v5"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{name[:4]}</text>'
            )
    low, high = (_points(edge, scale) for edge in band)
    parts.append(f'<path class="band" d="M{"L".join([*high, *reversed(low)])}Z"/>')
    parts.extend(f'<path class="run" d="M{"L".join(_points(run, scale))}"/>' for run in runs)
    y = bottom - target * scale
    parts.append(f'<path class="target" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
    parts.append(f'<text class="target-label" x="{_LEFT + 8}" y="{y - 7:.1f}">target {short(target)}</text>')
    parts.append(f'<path class="median" d="M{"L".join(_points(median, scale))}"/>')
    for name, value in known.items():
        month = LABELS.index(name)
        x = _LEFT + width * month / (MONTHS - 1)
        y = bottom - value * scale
        parts.append(f'<circle class="known" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        parts.append(
            f'<text class="known-label" x="{x + 9:.1f}" y="{y + (16 if month else -16):.1f}">'
            f"known: {short(value)}</text>"
        )
    end = _points(median, scale)[-1].split()
    parts.append(f'<circle class="end" cx="{end[0]}" cy="{end[1]}" r="4.5"/>')
    parts.append("</svg>")
    return "".join(parts)


def timeline(values: Values, target: float, reached: int | None) -> str:
    """A small curve of a count and its target line, with a dot where the target is reached."""
    width, height = 168.0, 34.0
    top = max(float(values.max()), target, 1.0)
    xs = [2 + (width - 4) * month / (MONTHS - 1) for month in range(MONTHS)]
    ys = [height - 3 - (height - 8) * float(value) / top for value in values]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    goal = height - 3 - (height - 8) * target / top
    dot = (
        f'<circle class="hit" cx="{xs[reached]:.1f}" cy="{ys[reached]:.1f}" r="3.6"/>'
        if reached is not None
        else ""
    )
    return (
        f'<svg class="spark" viewBox="0 0 {width:.0f} {height:.0f}" aria-hidden="true">'
        f'<path class="area" d="M2 {height - 3}L{line}L{xs[-1]:.1f} {height - 3}Z"/>'
        f'<path class="target" d="M2 {goal:.1f}H{width - 2:.0f}"/><path class="median" '
        f'd="M{line}"/>{dot}</svg>'
    )


def bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Horizontal bars. Rows: name, value, label of the bar."""
    width, step, name_width = 720.0, 30.0, 190.0
    top = max((value for _, value, _ in rows), default=1.0) or 1.0
    parts = [
        f'<svg viewBox="0 0 {width:.0f} {step * len(rows):.0f}" role="img" aria-label="{escape(title)}">'
    ]
    for index, (name, value, label) in enumerate(rows):
        y = index * step
        length = max(1.5, (width - name_width - 190.0) * value / top)
        parts.append(
            f'<text class="label" x="{name_width - 12}" y="{y + 20}" text-anchor="end">{escape(name)}</text>'
        )
        parts.append(
            f'<rect class="bar" x="{name_width}" y="{y + 6}" width="{length:.1f}" height="18" rx="4"/>'
        )
        parts.append(
            f'<text class="value" x="{name_width + length + 9:.1f}" y="{y + 20}">{escape(label)}</text>'
        )
    return "".join((*parts, "</svg>"))


def stacks(title: str, names: Sequence[str], columns: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Stacked columns: one column per year, one layer per name."""
    sums = [sum(values) for _, values in columns]
    steps = _steps(max(sums))
    scale = (_HEIGHT - _TOP - _BOTTOM) / steps[-1]
    bottom = _HEIGHT - _BOTTOM
    slot = (_WIDTH - _LEFT - _RIGHT) / len(columns)
    parts = [f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(title)}">']
    for value in steps:
        y = bottom - value * scale
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
        )
    for index, (year, values) in enumerate(columns):
        x, y = _LEFT + slot * (index + 0.2), bottom
        for layer, value in enumerate(values):
            height = value * scale
            y -= height
            parts.append(
                f'<rect class="layer{layer}" x="{x:.1f}" y="{y:.1f}" width="{slot * 0.6:.1f}" '
                f'height="{max(0.0, height - 1):.1f}"><title>{escape(names[layer])} {year}: '
                f"{value:,.0f}</title></rect>"
            )
        middle = x + slot * 0.3
        parts.append(
            f'<text class="tick" x="{middle:.1f}" y="{bottom + 20}" text-anchor="middle">{year}</text>'
        )
        parts.append(
            f'<text class="value" x="{middle:.1f}" y="{y - 7:.1f}" '
            f'text-anchor="middle">{short(sums[index])}</text>'
        )
    return "".join((*parts, "</svg>"))


@cache
def _features() -> tuple[Mapping[str, Any], ...]:
    text = files("qilu_contract").joinpath("data", "shandong.geojson").read_text(encoding="utf-8")
    return tuple(json.loads(text)["features"])


def _rings(feature: Mapping[str, Any]) -> list[list[list[float]]]:
    geometry = feature["geometry"]
    if geometry["type"] == "Polygon":
        return list(geometry["coordinates"])
    return [ring for polygon in geometry["coordinates"] for ring in polygon]


def shade(value: float, top: float) -> int:
    """The shade of a value: 0 for none, otherwise 1 (least) to 6 (most), in equal steps."""
    return 0 if value <= 0 else min(_SHADES, 1 + int(_SHADES * value / top * 0.9999))


def city_map(title: str, values: Mapping[str, float], texts: Mapping[str, str], top: float) -> str:
    """A map of the 16 cities, shaded by value (darker is more; `top` is the darkest) and labelled with
    `texts`."""
    points = [point for feature in _features() for ring in _rings(feature) for point in ring]
    west, east = min(x for x, _ in points), max(x for x, _ in points)
    south, north = min(y for _, y in points), max(y for _, y in points)
    squeeze = math.cos(math.radians((south + north) / 2.0))
    scale = 800.0 / ((east - west) * squeeze)
    height = (north - south) * scale

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - west) * squeeze * scale, (north - y) * scale

    shapes, labels = [], []
    for feature in _features():
        code, name = feature["properties"]["code"], feature["properties"]["name"]
        outline = "".join(
            "M" + "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in ring) + "Z"
            for ring in _rings(feature)
        )
        level = shade(values[code], top)
        shapes.append(
            f'<path class="s{level}" d="{outline}">'
            f"<title>{escape(name)}: {escape(texts[code])}</title></path>"
        )
        x, y = place(*feature["properties"]["center"])
        dx, dy = _NUDGE.get(code, (0, 0))
        ink = "high" if level >= 4 else "low"
        labels.append(
            f'<text class="{ink}" x="{x + dx:.1f}" y="{y + dy:.1f}"><tspan '
            f'class="name">{escape(name)}</tspan>'
            f'<tspan x="{x + dx:.1f}" dy="17">{escape(texts[code])}</tspan></text>'
        )
    return (
        f'<svg class="map" viewBox="-4 -4 808 {height + 8:.0f}" role="img" aria-label="{escape(title)}">'
        f"{''.join(shapes)}{''.join(labels)}</svg>"
    )
