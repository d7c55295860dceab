"""Centrifugal pumps: affinity laws, a falling head curve, NPSH, P = ρgQH/η.

Variation within seconds is SKAB's (C: lag-1 autocorrelation at 1 s of body temperature 0.938, vibration
0.927, current 0.074, fluid temperature 1.0). Faults: a starved suction cavitates, a throttled valve moves the
duty point up the curve, a worn impeller loses head and efficiency, imbalance shakes at the speed of rotation.
Marks of constants: S source found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import math

import numpy as np

from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.exact import sway
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values
from qilu_devices.shifts import Hall, Shifts

SIZES_M3_H = (12.5, 25.0, 50.0, 100.0, 200.0, 400.0)  # N: rated flows of ISO 2858
SIZE_WEIGHTS = (2.0, 3.0, 3.0, 3.0, 1.5, 0.5)  # A
SYNCHRONOUS_RPM = 1500.0
SHUT_OFF = 1.25  # A: head at no flow, of rated head
WATER_KW = 1000.0 * 9.81 / 3.6e6  # C: kW for 1 m³/h lifted by 1 m
MOTOR_EFFICIENCY, POWER_FACTOR, VOLTAGE_V = 0.92, 0.86, 380.0  # A; N
SUCTION_KPA = 30.0  # A
CAVITATES_BELOW_M = 0.4  # A: margin at which bubbles are heard
BODY_TAU_S, VIBRATION_TAU_S = 15.6, 13.2  # C: −1/ln 0.938, −1/ln 0.927
CURRENT_NOISE = 0.15  # C: the rig has .20; white, so that the current's memory is SKAB's


def head_m(rated_m: Values, share: Values, speed: Values) -> Values:
    """Head over flow (share of rated flow) at a speed (share of rated): H0·(a·n² − (a − 1)·q²), the affinity
    laws with a parabola."""
    return np.asarray(rated_m * (SHUT_OFF * speed * speed - (SHUT_OFF - 1.0) * share * share))


def efficiency(best: Values, share: Values, speed: Values) -> Values:
    """Falls with the square of the distance from the best flow, which goes with speed; not below 0.1 of the
    best."""
    away = share / speed - 1.0
    return np.asarray(best * np.maximum(1.0 - 0.8 * away * away, 0.1))


class Pumps:
    """The kernel of class `pump`; see `qilu_devices.kernel.Kernel`.

    Equations::

        H = H0·(1.25·n² − 0.25·q²)                      n speed, q flow, each of rated: affinity laws
        η = η_best·(1 − 0.8·(q/n − 1)²)
        P = ρ·g·Q·H/(η·η_motor)
        q: first-order (5-25 s) after demand·(1 − 0.23·closed), less a third for bubbles
        NPSH margin = m0 − 0.8·(q² − 1) − s·(2 − s)·(m0 + 1.6), s starved;  bubbles from below 0.4 m
        body: first-order after T_hall + 8 + 14·load + 3·bubbles;  acceleration ∝ 1 + 1.8·imbalance
        vibration = √(once² + rest²);  once ∝ 1 + 7·imbalance, rest ∝ 1 + bubbles
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self.rated_m3_h = units.pick("rated", SIZES_M3_H, SIZE_WEIGHTS)
        self._head_m = units.uniform("head", 38.0, 56.0)  # A: 30-60
        self._best = units.uniform("best", 0.68, 0.78)  # A
        self._demand = units.uniform("demand", 0.8, 1.05)  # A: share of rated flow
        self._converter = units.uniform("converter") < 0.4  # A: share with a frequency converter
        self._always = units.uniform("always") < 0.5  # A: share that runs round the clock
        self._suction_m = units.uniform("suction", 1.2, 4.0)  # A: margin at rated flow
        self._accel = units.uniform("accel", 0.22, 0.38)  # S: 0.3 g normal
        self._vibration = units.uniform("vibration", 0.9, 2.0)  # N: zones A and B
        self._fluid_c = units.uniform("fluid", 12.0, 45.0)  # A
        self._shifts, self._hall = Shifts(units, enterprises), Hall(units, enterprises)
        self._flow = Autoregression(units, "flow", interval_s, 1800.0)  # A
        self._body_noise = Autoregression(units, "body", interval_s, BODY_TAU_S)
        self._shake = Autoregression(units, "shake", interval_s, VIBRATION_TAU_S)
        self._fluid = Autoregression(units, "fluid", interval_s, 4.0 * 3600.0)  # A
        # C: the rig's flow takes 8-76 s from 10 to 90 % of a change.
        self._pipes = FirstOrder(interval_s, units.uniform("pipes", 5.0, 25.0))
        self._warmth = FirstOrder(interval_s, 1200.0)  # A
        self._meters = Consumption(len(units), interval_s)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        starved, closed = faults["cavitation"], faults["valve_closure"]
        worn, imbalance = faults["impeller_wear"], faults["rotor_imbalance"]
        noise = self._units.normal
        running = controls.working(np.where(self._always, 1.0, self._shifts.running(t_ms)))
        wanted = controls.value("flow", self._demand + 0.015 * self._flow.step(k), 0.01)  # A
        speed = np.where(self._converter, np.minimum(0.75 + 0.25 * wanted, 1.0), 1.0)
        # C: closing the rig's valves takes 1.5-23 % of its flow. The water in the pipes follows with a lag.
        share = self._pipes.step(wanted * (1.0 - 0.23 * closed) * (1.0 - 0.04 * worn))
        # A: NPSHr grows with the square of flow; a starved suction loses its margin and 1.6 m more. Half
        # starved (the least that is labelled) it has lost three quarters, which is enough for bubbles.
        margin = self._suction_m - 0.8 * (share * share - 1.0)
        margin = margin - starved * (2.0 - starved) * (self._suction_m + 1.6)
        bubbles = np.clip((CAVITATES_BELOW_M - margin) * (1.0 / 1.2), 0.0, 1.0)
        # C: bubbles take a third of the rig's flow, and shake it.
        share = share * (1.0 - bubbles * (0.33 + 0.05 * noise("bubbles", k)))
        head = head_m(self._head_m, share, speed) * (1.0 - 0.28 * bubbles) * (1.0 - 0.2 * worn)  # A
        eta = efficiency(self._best, share, speed) * (1.0 - 0.12 * bubbles) * (1.0 - 0.15 * worn)  # A
        flow = self.rated_m3_h * share
        shaft_kw = running * WATER_KW * flow * head / eta
        power = shaft_kw / MOTOR_EFFICIENCY
        current = power * (1000.0 / (math.sqrt(3.0) * VOLTAGE_V * POWER_FACTOR))
        unrest = self._shake.step(k)
        shaking, unsteady = sway(0.022 * unrest), sway(0.1 * unrest)  # C: the rig's acceleration; A
        ambient = self._hall.temperature_c(t_ms)
        # A: 22 K above the hall at rated load, most of it from bearings and seal; wear of the wet end adds.
        load = shaft_kw / (WATER_KW * self.rated_m3_h * self._head_m / self._best)
        body = self._warmth.step(ambient + running * (8.0 + 14.0 * load + 3.0 * bubbles))
        fluid = (
            self._fluid_c + 0.15 * (self._hall.weather.outdoor_c(t_ms) - 13.5) + 0.8 * self._fluid.step(k)
        )  # A
        once = 0.4 * self._vibration * (1.0 + 7.0 * imbalance)  # A: the part at the frequency of rotation
        rest = 0.9 * self._vibration * (1.0 + 1.0 * bubbles)
        return {
            "flow": running * flow * (1.0 + 0.004 * noise("flow", k)),
            "head": running * head,
            "efficiency": running * 100.0 * eta,
            # C: imbalance shakes the rig's casing 2.8 times as much, and does not warm it.
            # S: 0.3 g in order, 0.8-1.5 g cavitating; A: a pump at standstill feels the floor.
            "casing_accel": 0.01
            + running
            * shaking
            * (self._accel * (1.0 + 1.8 * imbalance) + 0.95 * bubbles * (1.0 + 0.2 * unrest)),
            "NPSHa_margin": np.where(running > 0.0, margin, self._suction_m + 0.8),
            "power_in": power,
            "current": current * (1.0 + CURRENT_NOISE * noise("current", k)),
            "speed": running * SYNCHRONOUS_RPM * speed * (1.0 - 0.02 * np.maximum(load, 0.0)),
            "discharge_pressure": SUCTION_KPA + running * 9.81 * head,
            "vibration": 0.02 + running * np.sqrt(once * once + rest * rest) * unsteady,
            "vibration_1x": 0.01 + running * once * unsteady,
            "body_temp": body + 0.25 * self._body_noise.step(k),
            "fluid_temp": fluid,
            **self._meters.step(k, power, GRID_KG_PER_KWH * power),
        }
