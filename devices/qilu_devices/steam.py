"""Water and steam, by a small table.

Saturation temperature and enthalpy of saturated steam over absolute pressure: values of IAPWS-IF97 as printed
in steam tables (N: not recomputed here, except 1.35 MPa: 193.35 °C, 2787.7 kJ/kg, S, computed with CoolProp).
Between the rows, linear in the logarithm of pressure: within 0.4 °C and 1 kJ/kg.
"""

from __future__ import annotations

import numpy as np

from qilu_devices import exact
from qilu_devices.noise import Values

ATMOSPHERE_MPA = 0.101  # A: sea level, near enough for the whole province

_P_MPA = np.array([0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.35, 1.5, 2.0, 2.5, 3.0, 4.0])
_T_C = np.array(
    [99.61, 120.21, 143.61, 158.83, 170.41, 179.89, 187.96, 193.35, 198.30, 212.38, 223.96, 233.86, 250.36]
)
_H_KJ_KG = np.array(
    [
        *(2674.9, 2706.2, 2738.1, 2756.1, 2768.3, 2777.1, 2783.8),
        *(2787.7, 2791.0, 2798.4, 2802.0, 2803.3, 2800.9),
    ]
)
_LOG_P = exact.log(_P_MPA)


def saturation_c(p_gauge_mpa: Values) -> Values:
    """Temperature of saturated steam at a gauge pressure."""
    return np.asarray(np.interp(exact.log(p_gauge_mpa + ATMOSPHERE_MPA), _LOG_P, _T_C))


def steam_enthalpy(p_gauge_mpa: Values, t_c: Values) -> Values:
    """kJ/kg of saturated or superheated steam: saturation's plus cp·ΔT, with cp = 2.15 + 0.125·p (C: fitted
    to 3151.1 kJ/kg at 1.35 MPa, 350 °C and 3330.8 kJ/kg at 3.92 MPa, 450 °C, absolute; both within 5 kJ/kg).
    """
    p_abs = p_gauge_mpa + ATMOSPHERE_MPA
    saturated = np.interp(exact.log(p_abs), _LOG_P, _H_KJ_KG)
    superheat = np.maximum(t_c - saturation_c(p_gauge_mpa), 0.0)
    return np.asarray(saturated + (2.15 + 0.125 * p_abs) * superheat)


def water_enthalpy(t_c: Values) -> Values:
    """kJ/kg of liquid water between 50 and 150 °C: 4.18·t + 0.00017·t² (C: 441.1 at 105 °C, S, within 1
    kJ/kg)."""
    return np.asarray(4.18 * t_c + 0.00017 * t_c * t_c)
