"""Three-phase induction motors, four poles at 50 Hz, driven by a shift calendar.

Slip grows with load; losses are k0 + k1·L²; the winding follows its losses with one time constant; current is
P/(√3·U·pf). Faults: a bearing adds friction and shakes, broken bars add slip and rotor loss, shorted turns
and unbalanced phases add a negative sequence and heat, overload loads. Marks of constants: S source found, C
computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import math

import numpy as np

from qilu_devices import exact
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values
from qilu_devices.shifts import Hall, Shifts

SYNCHRONOUS_RPM = 1500.0  # C: 120·50 Hz/4 poles
RATED_VOLTAGE_V = 380.0  # N: GB low voltage
VOLTAGE_SD = 0.012  # A

# N: rated powers of the IEC series from 0.75 to 375 kW.
RATED_KW = (
    *(0.75, 1.1, 1.5, 2.2, 3.0, 4.0, 5.5, 7.5, 11.0, 15.0, 18.5, 22.0, 30.0),
    *(37.0, 45.0, 55.0, 75.0, 90.0, 110.0, 132.0, 160.0, 200.0, 250.0, 315.0, 375.0),
)
# N: shares by size class of the US DOE's motor assessment (12.4 million motors: up to 4, 15, 37, 75, 160 and
# 375 kW), not checked against it; even within a class (A).
_SHARES = ((0.588, 6), (0.264, 4), (0.091, 4), (0.029, 3), (0.018, 4), (0.010, 4))
RATED_WEIGHTS = tuple(share / sizes for share, sizes in _SHARES for _ in range(sizes))

# Over the logarithm of rated power. Efficiency IE3: 0.75 and 7.5 kW S (IEC table), the rest N.
_LOG_KW = exact.log(np.array([0.75, 7.5, 37.0, 90.0, 200.0, 375.0]))
_EFFICIENCY = np.array([0.825, 0.904, 0.939, 0.952, 0.960, 0.960])
_RATED_SLIP = np.array([0.043, 0.028, 0.015, 0.011, 0.009, 0.007])  # A: larger machines slip less
_POWER_FACTOR = np.array([0.74, 0.83, 0.86, 0.87, 0.88, 0.88])  # A: typical of four poles at full load

FIXED_LOSS_SHARE = 0.35  # A: iron and friction, of the losses at full load
FIXED_REACTIVE_SHARE = 0.6  # A: magnetising, of the reactive power at full load
MAX_LOAD = 1.08  # A: below the 1.1 of rated power that a sound drive takes
MIN_LOAD = 0.15  # A: a driven machine turning empty
LOAD_SD = 0.08  # A
ORDERS_SD, ORDERS_TAU_S = 0.05, 2.0 * 86_400.0  # A: what is made these days
LOAD_TAU_S = 1200.0  # A: batches and settings change every 20 min or so
LIFE_REFERENCE_C = 155.0  # N: class F; insulation life halves every 10 K (Arrhenius)
SQRT_3 = math.sqrt(3.0)
_PER_KELVIN = exact.LN_2 / 10.0


class Motors:
    """The kernel of class `motor`; see `qilu_devices.kernel.Kernel`. After a step, `load` is the mechanical
    load in rated powers.

    Equations::

        slip s = L·s_rated·(1 + 0.4·broken bars);  n = 1500·(1 − s)
        losses = k0 + k1·L² (0.35 and 0.65 of those at full load), + 2·u² % for unbalance u,
            and what bearing, turns and bars add
        P = P_rated·(L + losses);  S² = P² + Q²;  I = S/(√3·U) = P/(√3·U·pf)
        winding: dT/dt = (T∞ − T)/τ, T∞ = T_hall + rise·losses
        ageing = 2^((T − 155)/10)                       Arrhenius: life halves every 10 K
        vibration = v0·(0.9 + 0.15·L)·(1 + 0.2·b + 1.9·b⁹);  envelope ∝ 1 + e·b², b bearing, e .6-17 by unit
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self.rated_kw = units.pick("rated_kw", RATED_KW, RATED_WEIGHTS)
        log_kw = exact.log(self.rated_kw)
        efficiency = np.interp(log_kw, _LOG_KW, _EFFICIENCY)
        self._rated_loss = 1.0 / efficiency - 1.0  # of rated power
        self._rated_slip = np.interp(log_kw, _LOG_KW, _RATED_SLIP)
        power_factor = np.interp(log_kw, _LOG_KW, _POWER_FACTOR)
        self._rated_reactive = (
            np.sqrt(1.0 / (power_factor * power_factor) - 1.0) / efficiency
        )  # of rated power
        self._rise_c = units.uniform("rise_c", 58.0, 74.0)  # A: class B allows 80 K (N)
        self._mean_load = units.uniform("mean_load", 0.45, 0.85)  # A
        self._vibration = units.uniform("vibration", 0.6, 1.6)  # N: zones A and B of ISO 20816-3
        self._sideband_db = units.uniform("sideband", -60.0, -52.0)  # A
        self._unbalance = units.uniform("negative", 0.15, 0.4)  # A: % of voltage
        # C: seeded faults raise the envelope to 1.6 to 18 times its level, by bearing (CWRU).
        self._pitting = exact.exp(units.uniform("pitting", math.log(0.6), math.log(17.0)))
        self._shifts, self._hall = Shifts(units, enterprises), Hall(units, enterprises)

        self._load = Autoregression(units, "load", interval_s, LOAD_TAU_S)
        self._orders = Autoregression(units, "orders", interval_s, ORDERS_TAU_S)
        self._voltage = Autoregression(
            units, "voltage", interval_s, 600.0
        )  # A: the grid's taps and neighbours
        self._grid = Autoregression(units, "grid", interval_s, 2.0 * 3600.0)  # A: loads on single phases
        self._shake = Autoregression(units, "shake", interval_s, 300.0)  # A
        self._grease = Autoregression(units, "grease", interval_s, 6.0 * 3600.0)  # A
        self._winding = FirstOrder(
            interval_s, 60.0 * units.uniform("tau_min", 20.0, 40.0)
        )  # A: 30 min, 10-60
        self._meters = Consumption(len(units), interval_s)
        self.load = np.zeros(len(units))

    def running(self, t_ms: Times) -> Values:
        """1 where the shift calendar has the unit at work, else 0."""
        return self._shifts.running(t_ms)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        bearing, bars, turns = faults["bearing"], faults["broken_rotor_bar"], faults["stator_inter_turn"]
        # A: the grid is never quite balanced, and never equally; a fault adds up to 0.8 % of voltage.
        unbalance = self._unbalance * exact.sway(0.3 * self._grid.step(k)) + 0.8 * faults["phase_unbalance"]
        running = controls.working(self.running(t_ms))
        ripple = 0.01 * self._units.normal("ripple", k)  # A: what changes from sample to sample
        slow = LOAD_SD * self._load.step(k) + ORDERS_SD * self._orders.step(k)
        wanted = controls.value("load", self._mean_load + slow, 0.01) + ripple
        # A: an overload adds up to a quarter of what the drive does, which a thermal relay bears for a while.
        load = running * np.clip(wanted, MIN_LOAD, MAX_LOAD) * (1.0 + 0.25 * faults["overload"])
        self.load = load
        square = load * load

        # Of the loss at full load. NEMA MG 1: unbalance adds about 2·u² % to the rise (N); the rest A.
        loss = running * (FIXED_LOSS_SHARE + (1.0 - FIXED_LOSS_SHARE) * square) * (
            1.0 + 0.02 * unbalance * unbalance
        ) + running * (0.05 * bearing + 0.08 * turns + 0.08 * bars * square)
        power_kw = self.rated_kw * (load + self._rated_loss * loss)
        reactive_share = FIXED_REACTIVE_SHARE + (1.0 - FIXED_REACTIVE_SHARE) * square
        reactive_kvar = running * self.rated_kw * self._rated_reactive * reactive_share
        deviation = np.clip(VOLTAGE_SD * self._voltage.step(k), -0.05, 0.05)  # N: ±5 %, held by tap changers
        voltage = RATED_VOLTAGE_V * (1.0 + deviation)
        # |S| = P/pf, so this is P/(√3·U·pf) without dividing by a power factor of zero.
        apparent_kva = np.sqrt(power_kw * power_kw + reactive_kvar * reactive_kvar)
        current = (1000.0 / SQRT_3) * apparent_kva / voltage

        slip = load * self._rated_slip * (1.0 + 0.4 * bars)  # A
        winding = self._winding.step(self._hall.temperature_c(t_ms) + self._rise_c * loss)
        unrest = self._shake.step(k)
        # C: a sound motor's vibration varies by 1.2 %; the lines of currents and bearings by more (A).
        shaking, unsteady = exact.sway(0.012 * unrest), exact.sway(0.12 * unrest)
        greased = exact.sway(0.1 * unrest + 0.2 * self._grease.step(k))
        cube = bearing * bearing * bearing
        # C: run to failure (IMS), a bearing's vibration hardly grows for most of its life, and then at once:
        # 1.2, 1.3, 1.8 and 3.1 times at .6, .8, .9 and .98 of it.
        shake = (
            self._vibration * (0.9 + 0.15 * load) * shaking * (1.0 + 0.2 * bearing + 1.9 * cube * cube * cube)
        )
        return {
            "power_in": power_kw,
            "slip": 100.0 * slip,
            "speed": running * SYNCHRONOUS_RPM * (1.0 - slip),
            "current": current,
            "voltage": voltage,
            "winding_temp": winding,
            "vibration": np.where(running > 0.0, shake, 0.02),  # A: what the floor passes on at standstill
            # A: computed from an estimated load, which is right to half a per cent.
            "efficiency": 100.0
            * self.rated_kw
            * load
            / np.maximum(power_kw, 1e-9)
            * (1.0 + 0.005 * self._units.normal("meters", k)),
            # A: 6-10 times the voltage's unbalance (N, NEMA MG 1); shorted turns add up to 4 %.
            "negative_sequence": running * (6.5 * unbalance + 4.0 * turns),
            "sideband": np.where(
                running > 0.0, self._sideband_db + 3.0 * unrest + 20.0 * bars * np.sqrt(load), -70.0
            ),  # A
            "vibration_2f": running * 0.1 * self._vibration * unsteady * (1.0 + 0.8 * unbalance),  # A
            # It rises long before the vibration does.
            "envelope": running * 0.05 * greased * (1.0 + self._pitting * bearing * bearing),
            "ageing_rate": exact.exp(_PER_KELVIN * (winding - LIFE_REFERENCE_C)),
            **self._meters.step(k, power_kw, GRID_KG_PER_KWH * power_kw),
        }
