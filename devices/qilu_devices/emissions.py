"""Emission factors: kg of CO2 for a unit's energy."""

from __future__ import annotations

GRID_KG_PER_KWH = 0.6410  # S: Shandong's grid, 2022 (national 0.5366)
COAL_KG_PER_GJ = 94.6  # S
NATURAL_GAS_KG_PER_GJ = 56.1  # N
GJ_PER_KWH = 0.0036  # C
CO2_PER_CARBON = 44.01 / 12.011  # C: molar masses
