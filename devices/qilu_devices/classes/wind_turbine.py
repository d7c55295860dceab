"""Wind turbines of 2,050 kW: Weibull wind with memory, a power curve with density correction, slow bearing
temperatures.

Faults: a worn gearbox bearing makes heat, a misaligned yaw loses cos² of the wind, ice on the blades (only
when it freezes) and a limit from the grid take power, a stiff drive takes current. Wind: a Gaussian latent,
mapped to a Weibull distribution and scaled by month and hour. Its slow part is the city's weather and the
farm's own (so cities breathe together by distance); half of the fast part is the farm's, half the turbine's,
and its shocks have heavy tails. Weights and time constants are fitted (C) to La Haute Borne's autocorrelation
of 10-minute means of speed (0.970, 0.888, 0.612, 0.308 at 10 min, 1 h, 6 h, 24 h) and of power (0.969, 0.888,
0.635, 0.359). Turbines are also stopped for repairs, and the grid curtails farms. Marks of constants: S
source found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qilu_devices.calendar import day_of
from qilu_devices.climate import local_hour
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.exact import cos_turns
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, HeavyTailed, Streams, Values
from qilu_devices.weather import weather_of

# C: La Haute Borne has k 2.55 and c 6.6 over a year; k is larger for what month and hour leave.
WEIBULL_K, WEIBULL_C = 2.8, 6.58
CITY_SHARE, FARM_SHARE, FARM_TAU_S = 0.62, 0.15, 8.0 * 3600.0  # C: fitted together with
FAST_TAU_S = 1.6 * 3600.0  # the rest of the variance; half of it is the farm's (A: .3-.6 in measured farms)
# C: wind at 10 m is 1.25 of its mean in March and April and .79 from August to October; and 1.45 at 14 h, .72
# at night, of which a fifth is left at the hub's height (A).
MONTH_SWING, MONTH_PEAK_DAY, HOUR_SWING = 0.2, 92.0, 0.06
# A: days on which a turbine stands for repair, so that about 4 % of the windy time has no power (C: 4.6 %).
STANDS, STOOD_H = 0.105, (2.0, 20.0)
HELD_BACK, HELD_TO = 0.08, (0.35, 0.85)  # A: days on which the grid limits a farm for some hours, and to what
FORECAST_TAU_S = 4.0 * 3600.0  # N: ultra-short-term forecasts reach four hours (GB/T 19963)
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

        wind = month·hour·Weibull(Φ(z)), z = √.62·city + √.15·farm + √.23·(farm's fast + own fast)/√2
        v' = v·(ρ/1.225)^(1/3)                          density correction, IEC 61400-12-1
        P = curve(v')·cos²(yaw)·(1 − 0.35·ice), at most forecast·(1 − 0.6·curtailment) and the grid's limit
        forecast: first-order (4 h) after the power that the wind allows
        rotor speed = λ·v/R within its limits;  pitch by wind, and to hold power back
        bearings and oil: first-order after nacelle + heat·(a + b·P/P_rated) + wear·(c + d·P/P_rated)
        I = P/(√3·U·pf)
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self._site = units.uniform("site", 0.95, 1.05)  # A: places in a farm differ
        self._heading = enterprises.uniform("heading", 0.0, 360.0)  # A: prevailing direction
        self._heat = units.uniform("heat", 0.9, 1.1)  # A: bearings differ
        self._weather, self._enterprises = weather_of(enterprises), enterprises
        self._all = np.arange(len(units))
        self._farm = Autoregression(enterprises, "wind_slow", interval_s, FARM_TAU_S)
        self._farm_fast = HeavyTailed(enterprises, "wind_fast", interval_s, FAST_TAU_S)
        self._fast = HeavyTailed(units, "wind_fast", interval_s, FAST_TAU_S)
        self._turn = Autoregression(enterprises, "turn", interval_s, 12.0 * 3600.0)  # A
        self._forecast = FirstOrder(interval_s, FORECAST_TAU_S)
        self._gear_bearing = FirstOrder(interval_s, 3600.0)  # A
        self._gear_oil = FirstOrder(interval_s, 5400.0)  # A: more mass than a bearing
        self._generator_bearing = FirstOrder(interval_s, 2400.0)  # A
        self._drive_a = units.uniform("drive", 2.2, 3.0)  # A
        self._vane = Autoregression(units, "vane", interval_s, 1800.0)  # A
        self._meters = Consumption(len(units), interval_s)

    def _wind(self, k: int, t_ms: Times) -> Values:
        fast = math.sqrt(0.5) * (self._farm_fast.step(k) + self._fast.step(k))
        latent = (
            math.sqrt(CITY_SHARE) * self._weather.wind(t_ms)
            + math.sqrt(FARM_SHARE) * self._farm.step(k)
            + math.sqrt(1.0 - CITY_SHARE - FARM_SHARE) * fast
        )
        month = 1.0 + MONTH_SWING * cos_turns((day_of(t_ms) % 365.25 - MONTH_PEAK_DAY) / 365.25)
        hour = 1.0 + HOUR_SWING * cos_turns((local_hour(t_ms) - 14.0) / 24.0)
        return np.asarray(self._site * month * hour * np.interp(latent, _LATENT, _WEIBULL_MS))

    def _held(self, t_ms: Times) -> tuple[NDArray[np.bool_], Values]:
        """Mask of turbines under repair, and the limit that the grid sets for each."""
        day, hour = day_of(t_ms), local_hour(t_ms)
        unit, farm = self._units.chance_of, self._enterprises.chance_of
        from_h = 24.0 * unit("stands_from", self._all, day)
        low, high = STOOD_H
        until_h = from_h + low + (high - low) * unit("stands_for", self._all, day)
        stands = (unit("stands", self._all, day) < STANDS) & (hour >= from_h) & (hour < until_h)
        limit_from_h = 18.0 * farm("limit_from", self._all, day)
        limited = (farm("limited", self._all, day) < HELD_BACK) & (hour >= limit_from_h)
        limited &= hour < limit_from_h + 5.0
        low, high = HELD_TO
        share = low + (high - low) * farm("limit", self._all, day)
        return stands, np.where(limited, RATED_KW * share, RATED_KW)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        wind = self._wind(k, t_ms)
        outdoor = self._weather.outdoor_c(t_ms)
        stands, grid_kw = self._held(t_ms)
        blows = (wind >= CUT_IN_MS) & (wind < CUT_OUT_MS)
        running = controls.allowed((blows & ~stands).astype(np.float64))
        # A: 2 % of scatter about the curve within ten minutes; rated power is a ceiling that the converter
        # holds.
        scatter = 1.0 + 0.02 * self._units.normal("scatter", k)
        offset_deg = 22.0 * faults["yaw_misalignment"]  # A: up to 22° off the wind
        alignment = cos_turns(offset_deg / 360.0)
        # A: ice takes up to a third of the power, and comes only below 2 °C (S: IEA Task 19).
        ice = faults["blade_icing"] * (outdoor < 2.0)
        aerodynamic = (
            power_kw(wind, air_density(outdoor)) * scatter * (alignment * alignment) * (1.0 - 0.35 * ice)
        )
        # A: the control centre allows a share of the forecast, 40 % at the least.
        forecast = self._forecast.step(aerodynamic)
        curtailed = faults["curtailment"]
        limit_kw = np.where(
            np.asarray(curtailed) > 0.0, np.minimum(grid_kw, forecast * (1.0 - 0.6 * curtailed)), grid_kw
        )
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
        drive = self._drive_a + 0.8 * share + 0.6 * self._units.normal("drive", k)  # A
        # A: rises at rated power: 40 K gearbox bearing, 33 K its oil, 32 K generator bearing; friction takes
        # part of it at once. So does a worn bearing's: its friction has a part that grows with load and one
        # that does not (N: Palmgren), together 22 K.
        return {
            "wind_speed": wind,
            "active_power": power,
            "rotor_speed": np.where(running > 0.0, rpm, 0.0),
            "pitch_angle": pitch,
            "nacelle_direction": np.mod(direction, 360.0),
            "gearbox_bearing_temp": self._gear_bearing.step(
                nacelle + self._heat * (12.0 * running + 28.0 * share) + wear * (7.0 * running + 15.0 * share)
            ),
            "gearbox_oil_temp": self._gear_oil.step(
                nacelle + self._heat * (10.0 * running + 23.0 * share) + wear * (1.5 * running + 3.5 * share)
            ),
            "generator_bearing_temp": self._generator_bearing.step(
                nacelle + self._heat * (6.0 * running + 26.0 * share)
            ),
            "tower_accel": sway,
            "outdoor_temp": outdoor,
            "yaw_error": yaw_error,
            # A: a stiff drive takes up to 3.8 A more, in the mean beyond the 6 A of the study.
            "drive_current": np.where(running > 0.0, drive + 3.8 * faults["pitch_drive"], 0.3),
            "grid_current": np.abs(power) * (1000.0 / (math.sqrt(3.0) * GRID_V * POWER_FACTOR)),
            **self._meters.step(k, np.maximum(power, 0.0), GRID_KG_PER_KWH * np.maximum(-power, 0.0)),
        }
