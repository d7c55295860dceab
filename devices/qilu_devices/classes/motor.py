"""Three-phase induction motors, four poles at 50 Hz, driven by a shift calendar.

Slip grows with load; losses are k0 + k1·L²; the winding follows its losses with one time constant; current is
P/(√3·U·pf). Marks of constants: S source found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import numpy as np

from qilu_devices.climate import local_hour, outdoor_c, weekday
from qilu_devices.kernel import FirstOrder, Times
from qilu_devices.noise import Autoregression, Streams, Values

SYNCHRONOUS_RPM = 1500.0  # C: 120·50 Hz/4 poles
RATED_VOLTAGE_V = 380.0  # N: GB low voltage
VOLTAGE_SD = 0.012  # A

# N: rated powers of the IEC series from 0.75 to 375 kW.
RATED_KW = (
    *(0.75, 1.1, 1.5, 2.2, 3.0, 4.0, 5.5, 7.5, 11.0, 15.0, 18.5, 22.0, 30.0),
    *(37.0, 45.0, 55.0, 75.0, 90.0, 110.0, 132.0, 160.0, 200.0, 250.0, 315.0, 375.0),
)
RATED_WEIGHTS = tuple(1.0 / kw**0.4 for kw in RATED_KW)  # A: small motors are many

# Over the logarithm of rated power. Efficiency IE3: 0.75 and 7.5 kW S (IEC table), the rest N.
_LOG_KW = np.log(np.array([0.75, 7.5, 37.0, 90.0, 200.0, 375.0]))
_EFFICIENCY = np.array([0.825, 0.904, 0.939, 0.952, 0.960, 0.960])
_RATED_SLIP = np.array([0.043, 0.028, 0.015, 0.011, 0.009, 0.007])  # A: larger machines slip less
_POWER_FACTOR = np.array([0.74, 0.83, 0.86, 0.87, 0.88, 0.88])  # A: typical of four poles at full load

FIXED_LOSS_SHARE = 0.35  # A: iron and friction, of the losses at full load
FIXED_REACTIVE_SHARE = 0.6  # A: magnetising, of the reactive power at full load
MAX_LOAD = 1.08  # A: below the 1.1 of rated power that the catalogue allows for
MIN_LOAD = 0.15  # A: a driven machine turning empty
LOAD_SD = 0.08  # A
LOAD_TAU_S = 1200.0  # A: batches and settings change every 20 min or so
HALL_C = 20.0  # A: mean of a factory hall; it follows a third of the outdoor swing (A)
HALL_SHARE = 0.33

# Shift patterns by enterprise: first and last hour of work (A); equal ends mean round the clock.
SHIFT_BEGIN_H = (8.0, 6.0, 0.0)
SHIFT_HOURS = (9.0, 16.0, 24.0)
SHIFT_WEIGHTS = (0.3, 0.4, 0.3)  # A
SUNDAY_OFF = 0.5  # A: share of enterprises that rest on Sundays, unless they work round the clock
STAGGER_H = 0.25  # A: units are switched on and off within a quarter of an hour


class Motors:
    """The kernel of class `motor`; see `qilu_devices.kernel.Kernel`."""

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self.rated_kw = units.pick("rated_kw", RATED_KW, RATED_WEIGHTS)
        log_kw = np.log(self.rated_kw)
        efficiency = np.interp(log_kw, _LOG_KW, _EFFICIENCY)
        self._rated_loss = 1.0 / efficiency - 1.0  # of rated power
        self._rated_slip = np.interp(log_kw, _LOG_KW, _RATED_SLIP)
        power_factor = np.interp(log_kw, _LOG_KW, _POWER_FACTOR)
        self._rated_reactive = np.sqrt(1.0 / power_factor**2 - 1.0) / efficiency  # of rated power
        self._rise_c = units.uniform("rise_c", 58.0, 74.0)  # A: class B allows 80 K (N)
        self._hall_c = HALL_C + units.uniform("hall_c", -4.0, 6.0)  # A
        self._mean_load = units.uniform("mean_load", 0.45, 0.85)  # A
        self._vibration = units.uniform("vibration", 0.6, 1.6)  # N: zones A and B of ISO 20816-3

        shift = enterprises.uniform("shift")
        edges = np.cumsum(SHIFT_WEIGHTS) / sum(SHIFT_WEIGHTS)
        pattern = np.minimum(np.searchsorted(edges, shift, side="right"), len(edges) - 1)
        self._begin_h = np.asarray(SHIFT_BEGIN_H)[pattern] + units.uniform("stagger", 0.0, STAGGER_H)
        self._hours = np.asarray(SHIFT_HOURS)[pattern]
        self._sunday_off = (enterprises.uniform("sunday") < SUNDAY_OFF) & (self._hours < 24.0)

        self._load = Autoregression(units, "load", interval_s, LOAD_TAU_S)
        self._voltage = Autoregression(
            units, "voltage", interval_s, 600.0
        )  # A: the grid's taps and neighbours
        self._shake = Autoregression(units, "shake", interval_s, 300.0)  # A
        self._winding = FirstOrder(
            interval_s, 60.0 * units.uniform("tau_min", 20.0, 40.0)
        )  # A: 30 min, 10-60
        self.load = np.zeros(len(units))

    def running(self, t_ms: Times) -> Values:
        """1 where the shift calendar has the unit at work, else 0."""
        since_begin = (local_hour(t_ms) - self._begin_h) % 24.0
        at_work = (since_begin < self._hours) & ~(self._sunday_off & (weekday(t_ms) == 6))
        return np.asarray(at_work, dtype=np.float64)

    def step(self, k: int, t_ms: Times) -> dict[str, Values]:
        running = self.running(t_ms)
        ripple = 0.01 * self._units.normal("ripple", k)  # A: what changes from sample to sample
        wanted = self._mean_load + LOAD_SD * self._load.step(k) + ripple
        self.load = load = running * np.clip(wanted, MIN_LOAD, MAX_LOAD)

        loss = running * (FIXED_LOSS_SHARE + (1.0 - FIXED_LOSS_SHARE) * load**2)  # of the loss at full load
        power_kw = self.rated_kw * (load + self._rated_loss * loss)
        reactive_share = FIXED_REACTIVE_SHARE + (1.0 - FIXED_REACTIVE_SHARE) * load**2
        reactive_kvar = running * self.rated_kw * self._rated_reactive * reactive_share
        deviation = np.clip(VOLTAGE_SD * self._voltage.step(k), -0.05, 0.05)  # N: ±5 %, held by tap changers
        voltage = RATED_VOLTAGE_V * (1.0 + deviation)
        # |S| = P/pf, so this is P/(√3·U·pf) without dividing by a power factor of zero.
        current = 1000.0 * np.hypot(power_kw, reactive_kvar) / (np.sqrt(3.0) * voltage)

        slip = load * self._rated_slip
        hall_c = self._hall_c + HALL_SHARE * (outdoor_c(t_ms) - 13.5)
        winding = self._winding.step(hall_c + self._rise_c * loss)
        shake = self._vibration * (0.75 + 0.35 * load) * np.exp(0.12 * self._shake.step(k))
        return {
            "power_in": power_kw,
            "slip": 100.0 * slip,
            "speed": running * SYNCHRONOUS_RPM * (1.0 - slip),
            "current": current,
            "voltage": voltage,
            "winding_temp": winding,
            "vibration": np.where(running > 0.0, shake, 0.02),  # A: what the floor passes on at standstill
        }
