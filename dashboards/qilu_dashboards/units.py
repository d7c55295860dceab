"""Grafana's ids for the catalogue's units of measurement."""

from __future__ import annotations

from qilu_contract.catalogue.classes import Signal

_GRAFANA = {
    "degC": "celsius",
    "K": "kelvin",
    "kW": "kwatt",
    "W": "watt",
    "kWh": "kwatth",
    "%": "percent",
    "V": "volt",
    "A": "amp",
    "Hz": "hertz",
    "rpm": "rotrpm",
    "m/s": "velocityms",
    "deg": "degree",
    "mm": "lengthmm",
    "s": "s",
    "min": "m",
    "kg": "masskg",
    "-": "none",
}
"""All other units are shown by their name in the catalogue; a suffix never rescales a value."""


def grafana_unit(unit: str) -> str:
    """Grafana's id of a catalogue unit."""
    return _GRAFANA.get(unit, f"suffix: {unit}")


def unit_of(signal: Signal) -> str:
    return grafana_unit(signal.unit)
