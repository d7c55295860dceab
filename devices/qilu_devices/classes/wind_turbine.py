"""Wind turbines of 2,050 kW: Weibull wind with memory, a power curve with density correction, slow bearing
temperatures.

Faults: a worn gearbox bearing makes heat, a misaligned yaw loses cos² of the wind, ice on the blades (only
when it freezes) and a limit from the grid take power, a stiff drive takes current. Wind: a Gaussian latent of
two autoregressive parts, mapped to a Weibull distribution. The slow part is shared by the turbines of one
enterprise, so a farm breathes together. Weights and time constants are fitted (C) to La Haute Borne's
autocorrelation of 10-minute means of speed (0.970, 0.888, 0.612, 0.308 at 10 min, 1 h, 6 h, 24 h) and of
power (0.969, 0.888, 0.635, 0.359), which the curve takes down: the latent lies between, 0.976, 0.881, 0.646,
0.350. Marks of constants: S source found, C computed, N standard named but not checked,
A assumed.
"""

from __future__ import annotations

import math

import numpy as np

from qilu_devices.climate import outdoor_c
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.exact import cos_turns
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values

WEIBULL_K, WEIBULL_C = 2.55, 6.6  # C: La Haute Borne
SLOW_SHARE, SLOW_TAU_S, FAST_TAU_S = 0.78, 30.0 * 3600.0, 1.8 * 3600.0  # C: fitted, see above
RATED_KW = 2050.0  # S: La Haute Borne
RADIUS_M = 41.0  # S: the rotor of that type is 82 m
CUT_IN_MS, CUT_OUT_MS = 3.0, 25.0  # A: usual for the size
STANDBY_KW = -6.0  # A: what a standing turbine draws
TIP_SPEED_RATIO = 8.0  # A: 7-9
MIN_RPM, MAX_RPM = 8.5, 17.0  # A
FEATHER_DEG = 87.0  # A
FINE_PITCH_DEG = -1.0  # S: La Haute Borne, minimum
GRID_V, POWER_FACTOR = 690.0, 0.98  # A: usual for the size
REFERENCE_DENSITY = 1.225  # N: IEC 61400-12-1
GAS_CONSTANT = 287.05  # J/(kg K), dry air
PRESSURE_PA = 100_800.0  # A: low land by the sea

# Power over wind speed at reference density. 4, 8 and 12 m/s are medians of La Haute Borne (C); between them
# Cp rises to 0.50 at 7-8 m/s and falls towards rated power (A).
_CURVE_MS = np.array([3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0])
_CURVE_KW = np.array(
    [0.0, 38.0, 150.0, 320.0, 545.0, 829.0, 1150.0, 1430.0, 1630.0, 1784.0, 1930.0, 2020.0, 2050.0]
)
_PITCH_MS = np.array([11.0, 13.0, 15.0, 20.0, 25.0])
_PITCH_DEG = np.array([FINE_PITCH_DEG, 3.0, 10.0, 18.5, 24.0])  # A


# Standard normal → Weibull quantile, tabulated once: v = c·(−ln(1 − Φ(z)))^(1/k), with 1 − Φ(z) =
# erfc(z/√2)/2.
_LATENT = np.linspace(-5.0, 5.0, 2001)
# Rounded, because libraries differ in the last bit.
_WEIBULL_MS = np.array(
    [
        round(WEIBULL_C * (-math.log(0.5 * math.erfc(z / math.sqrt(2.0)))) ** (1.0 / WEIBULL_K), 9)
        for z in _LATENT.tolist()
    ]
)


def power_kw(wind_ms: Values, density: Values) -> Values:
    """Electric power of a running turbine: the curve at the wind speed corrected for air density (IEC
    61400-12-1, N)."""
    excess = density / REFERENCE_DENSITY - 1.0  # within ±0.2: the cube root by its series, to 3e-4
    corrected = wind_ms * (1.0 + excess * (1.0 / 3.0 - excess * (1.0 / 9.0 - excess * (5.0 / 81.0))))
    return np.asarray(np.interp(corrected, _CURVE_MS, _CURVE_KW))


def air_density(temperature_c: Values) -> Values:
    """kg/m³ of dry air at the site's pressure."""
    return np.asarray(PRESSURE_PA / (GAS_CONSTANT * (temperature_c + 273.15)))


class WindTurbines:
    """The kernel of class `wind_turbine`; see `qilu_devices.kernel.Kernel`.

    Equations::

        wind = Weibull(Φ(z)), z = √a·slow + √(1 − a)·fast    two autoregressive parts, the slow one the farm's
        v' = v·(ρ/1.225)^(1/3)                          density correction, IEC 61400-12-1
        P = curve(v')·cos²(yaw)·(1 − 0.35·ice), at most rated·(1 − 0.6·curtailment)
        rotor speed = λ·v/R within its limits;  pitch by wind, and to hold power back
        bearings and oil: first-order after nacelle + heat·(a + b·P/P_rated) + wear·P/P_rated
        I = P/(√3·U·pf)
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self._site = units.uniform("site", 0.95, 1.05)  # A: places in a farm differ
        self._heading = enterprises.uniform("heading", 0.0, 360.0)  # A: prevailing direction
        self._heat = units.uniform("heat", 0.9, 1.1)  # A: bearings differ
        self._slow = Autoregression(enterprises, "wind_slow", interval_s, SLOW_TAU_S)
        self._fast = Autoregression(units, "wind_fast", interval_s, FAST_TAU_S)
        self._turn = Autoregression(enterprises, "turn", interval_s, 12.0 * 3600.0)  # A
        self._weather = Autoregression(
            enterprises, "weather", interval_s, 48.0 * 3600.0
        )  # A: warm and cold spells
        self._gear_bearing = FirstOrder(interval_s, 3600.0)  # A
        self._gear_oil = FirstOrder(interval_s, 5400.0)  # A: more mass than a bearing
        self._generator_bearing = FirstOrder(interval_s, 2400.0)  # A
        self._drive_a = units.uniform("drive", 2.2, 3.0)  # A
        self._vane = Autoregression(units, "vane", interval_s, 1800.0)  # A
        self._meters = Consumption(len(units), interval_s)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        latent = math.sqrt(SLOW_SHARE) * self._slow.step(k) + math.sqrt(1.0 - SLOW_SHARE) * self._fast.step(k)
        wind = self._site * np.interp(latent, _LATENT, _WEIBULL_MS)
        outdoor = outdoor_c(t_ms) + 1.5 * self._weather.step(k)  # A
        running = controls.allowed(((wind >= CUT_IN_MS) & (wind < CUT_OUT_MS)).astype(np.float64))
        # A: 2 % of scatter about the curve within ten minutes; rated power is a ceiling that the converter
        # holds.
        scatter = 1.0 + 0.02 * self._units.normal("scatter", k)
        offset_deg = 25.0 * faults["yaw_misalignment"]  # A: up to 25° off the wind
        alignment = cos_turns(offset_deg / 360.0)
        # A: ice takes up to a third of the power, and comes only below 2 °C (S: IEA Task 19).
        ice = faults["blade_icing"] * (outdoor < 2.0)
        aerodynamic = (
            power_kw(wind, air_density(outdoor)) * scatter * (alignment * alignment) * (1.0 - 0.35 * ice)
        )
        limit_kw = RATED_KW * (1.0 - 0.6 * faults["curtailment"])  # A: the grid allows 40 % at the least
        produced = np.minimum(aerodynamic, np.minimum(limit_kw, controls.value("power_limit", RATED_KW)))
        held_back = np.maximum(np.minimum(aerodynamic, RATED_KW) - produced, 0.0) / RATED_KW
        power = np.where(running > 0.0, produced, STANDBY_KW)
        share = np.maximum(power, 0.0) / RATED_KW

        rpm = np.clip(TIP_SPEED_RATIO * wind / RADIUS_M * 30.0 / np.pi, MIN_RPM, MAX_RPM)
        # A: blades turn out of the wind by up to 15° to hold power back.
        pitch = np.where(
            running > 0.0, np.interp(wind, _PITCH_MS, _PITCH_DEG) + 25.0 * held_back, FEATHER_DEG
        )
        yaw_error = 2.0 * self._units.normal("yaw", k) + 1.5 * self._vane.step(k) + offset_deg  # A
        direction = self._heading + 60.0 * self._turn.step(k) + yaw_error  # A
        nacelle = outdoor + 6.0 + 4.0 * running  # A: warmed by the converter
        thrust = np.minimum(wind / 12.0, 1.6)
        # A: ice unbalances the rotor.
        sway = 0.03 + 0.22 * (thrust * thrust) * (1.0 + 0.1 * self._units.normal("sway", k)) * (
            1.0 + 0.5 * ice
        )
        wear = faults["gearbox_bearing"]
        drive = self._drive_a + 0.8 * share + 0.2 * self._units.normal("drive", k)  # A
        # A: rises at rated power: 40 K gearbox bearing, 33 K its oil, 32 K generator bearing; friction takes
        # part of it at once.
        return {
            "wind_speed": wind,
            "active_power": power,
            "rotor_speed": np.where(running > 0.0, rpm, 0.0),
            "pitch_angle": pitch,
            "nacelle_direction": np.mod(direction, 360.0),
            "gearbox_bearing_temp": self._gear_bearing.step(
                nacelle + self._heat * (12.0 * running + 28.0 * share) + 22.0 * wear * share
            ),
            "gearbox_oil_temp": self._gear_oil.step(
                nacelle + self._heat * (10.0 * running + 23.0 * share) + 5.0 * wear * share
            ),
            "generator_bearing_temp": self._generator_bearing.step(
                nacelle + self._heat * (6.0 * running + 26.0 * share)
            ),
            "tower_accel": sway,
            "outdoor_temp": outdoor,
            "yaw_error": yaw_error,
            # A: a stiff drive takes up to 5 A more, beyond the 6 A of the study.
            "drive_current": np.where(running > 0.0, drive + 5.0 * faults["pitch_drive"], 0.3),
            "grid_current": np.abs(power) * (1000.0 / (math.sqrt(3.0) * GRID_V * POWER_FACTOR)),
            **self._meters.step(k, np.maximum(power, 0.0), GRID_KG_PER_KWH * np.maximum(-power, 0.0)),
        }
