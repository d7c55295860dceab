"""Centrifugal pumps in a pipe network: affinity laws, a falling head curve, NPSH, P = ρgQH/η.

The flow is where the pump's curve meets the network's, static head plus resistance; the water in the pipes
follows with a lag. Variation within seconds is SKAB's (C: lag-1 autocorrelation at 1 s of body temperature
0.938, vibration 0.927, current 0.074, fluid temperature 1.0). Faults: a starved suction cavitates and takes
head, a throttled valve adds resistance, a worn impeller loses head and efficiency, imbalance shakes at the
speed of rotation. Marks of constants: S source found, C computed, N standard named but not checked, A
assumed.
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
SHUT_OFF = 1.35  # A: head at no flow, of rated head, of a flat curve
CONVERTER_SPEED = 0.72  # A: 47.5 Hz at the usual flow; the rest is the reserve of a converter
STEEPEST = 1.5  # A: of a steep one, whose power hardly changes with flow
STATIC = (0.2, 0.5)  # A: what the network lifts whatever the flow, of rated head; the rest is friction
WATER_KW = 1000.0 * 9.81 / 3.6e6  # C: kW for 1 m³/h lifted by 1 m
MOTOR_EFFICIENCY, VOLTAGE_V = 0.92, 380.0  # A; N
MAGNETISING = 0.6  # A: reactive power that a motor takes whatever its load, of rated power
REACTIVE_SLOPE = 0.13  # A: more of it at rated load, where the power factor is 0.81
THROTTLED = (
    0.8  # C: a throttled valve adds four fifths to the network's friction: flow falls by 2-23 % (SKAB)
)
SUCTION_KPA = 30.0  # A
CAVITATES_BELOW_M = 0.4  # A: margin at which bubbles are heard
BODY_TAU_S, VIBRATION_TAU_S = 15.6, 13.2  # C: −1/ln 0.938, −1/ln 0.927
CURRENT_NOISE = 0.15  # C: the rig has .20; white, so that the current's memory is SKAB's


def head_m(rated_m: Values, share: Values, speed: Values, shut_off: Values | float = SHUT_OFF) -> Values:
    """Head over flow (share of rated flow) at a speed (share of rated): H0·(a·n² − (a − 1)·q²), the affinity
    laws with a parabola."""
    return np.asarray(rated_m * (shut_off * speed * speed - (shut_off - 1.0) * share * share))


def flow_share(
    shut_off: Values, speed: Values, static: Values, friction: Values, kept: Values | float = 1.0
) -> Values:
    """Flow (share of rated) at which pump and network have the same head: k·(a·n² − (a − 1)·q²) = h + f·q²,
    each of rated head; `kept` is the share k of its head that the pump still has."""
    spare = np.maximum(kept * shut_off * speed * speed - static, 0.01)  # A: a trickle still gets through
    return np.asarray(np.sqrt(spare / (kept * (shut_off - 1.0) + friction)))


def converter_speed(
    shut_off: Values, wanted: Values, static: Values, friction: Values, kept: Values | float = 1.0
) -> Values:
    """Speed (share of rated) at which `flow_share` is the wanted one, up to the rated speed."""
    lifted = static / kept + (shut_off - 1.0 + friction / kept) * wanted * wanted
    return np.minimum(np.sqrt(lifted / shut_off), 1.0)


def shaft_power(shut_off: Values | float, share: Values, speed: Values) -> Values:
    """Shaft power, of rated: n³·(s + (1 − s)·q/n). A pump that is best at its rated flow takes s = 2·(a − 1)
    of its power with its valve shut (C: the derivative of q·h/p is 0 at q = 1): most of it with a flat curve,
    all of it with a steep one. Recirculation and the friction of the impeller take it."""
    shut = 2.0 * (shut_off - 1.0)
    return np.asarray(speed * speed * (shut * speed + (1.0 - shut) * share))


def efficiency(best: Values, share: Values, speed: Values, shut_off: Values | float = SHUT_OFF) -> Values:
    """Hydraulic power over shaft power; the best flow goes with speed."""
    head = head_m(np.ones_like(share), share, speed, shut_off)
    return np.asarray(best * share * head / shaft_power(shut_off, share, speed))


class Pumps:
    """The kernel of class `pump`; see `qilu_devices.kernel.Kernel`.

    Equations::

        H = H0·(a·n² − (a − 1)·q²)                      n speed, q flow, each of rated: affinity laws
        k·(a·n² − (a − 1)·q²) = h + f·(1 + 0.8·closed²)·q²  the network, k = (1 − 0.42·bubbles)·(1 − 0.1·worn)
        n of a converter holds the wanted flow, up to rated speed
        η = η_best·q·(a·n² − (a − 1)·q²)/(n³·(s + (1 − s)·q/n)), s = 2·(a − 1)
        P = ρ·g·Q·H/(η·η_motor);  I = √(P² + Q_m²)/(√3·U), Q_m mostly magnetising
        q: first-order (5-25 s) after the network's
        NPSH margin = m0 − 0.8·(q² − 1) − s·(2 − s)·(m0 + 1.6), s starved;  bubbles from below 0.4 m
        body: first-order after T_hall + 8 + 14·load + 3·bubbles;  acceleration ∝ 1 + 1.8·imbalance
        vibration = √(once² + rest²);  once ∝ 1 + 1.8·imbalance, rest ∝ 1 + bubbles
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self.rated_m3_h = units.pick("rated", SIZES_M3_H, SIZE_WEIGHTS)
        self._head_m = units.uniform("head", 38.0, 56.0)  # A: 30-60
        self._best = units.uniform("best", 0.68, 0.78)  # A
        self._shut_off = units.uniform("shut_off", SHUT_OFF, STEEPEST)
        self._static = units.uniform("static", *STATIC)
        self._demand = units.uniform("demand", 0.8, 1.05)  # A: share of rated flow
        self._converter = units.uniform("converter") < 0.4  # A: share with a frequency converter
        self._always = units.uniform("always") < 0.5  # A: share that runs round the clock
        self._suction_m = units.uniform("suction", 1.2, 4.0)  # A: margin at rated flow
        self._accel = units.uniform("accel", 0.22, 0.38)  # S: 0.3 g normal
        self._vibration = units.uniform("vibration", 0.9, 2.0)  # N: zones A and B
        self._fluid_c = units.uniform("fluid", 12.0, 45.0)  # A
        self._shifts, self._hall = Shifts(units, enterprises), Hall(units, enterprises)
        self._flow = Autoregression(units, "flow", interval_s, 1800.0)  # A
        self._orders = Autoregression(
            units, "orders", interval_s, 1.5 * 86_400.0
        )  # A: what is made these days
        self._body_noise = Autoregression(units, "body", interval_s, BODY_TAU_S)
        self._shake = Autoregression(units, "shake", interval_s, VIBRATION_TAU_S)
        self._fluid = Autoregression(units, "fluid", interval_s, 4.0 * 3600.0)  # A
        # C: the rig's flow takes 8-76 s from 10 to 90 % of a change.
        self._pipes = FirstOrder(interval_s, units.uniform("pipes", 5.0, 25.0))
        self._warmth = FirstOrder(interval_s, 1200.0)  # A
        self._looseness = Autoregression(units, "looseness", interval_s, 6.0 * 3600.0)  # A: pipes and floor
        self._tank = Autoregression(units, "tank", interval_s, 3.0 * 3600.0)  # A: its level
        self._share = self._demand
        self._rated_kw = WATER_KW * self.rated_m3_h * self._head_m / (self._best * MOTOR_EFFICIENCY)
        self._meters = Consumption(len(units), interval_s)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        starved, closed = faults["cavitation"], faults["valve_closure"]
        worn, imbalance = faults["impeller_wear"], faults["rotor_imbalance"]
        noise = self._units.normal
        running = controls.working(np.where(self._always, 1.0, self._shifts.running(t_ms)))
        # A: 1.5 % within the hour, 4 % from day to day.
        own = self._demand * (1.0 + 0.015 * self._flow.step(k) + 0.04 * self._orders.step(k))
        wanted = controls.value("flow", own, 0.01)
        usual = np.where(self._converter, np.minimum(CONVERTER_SPEED + 0.25 * wanted, 1.0), 1.0)
        # A: NPSHr grows with the square of flow; a starved suction loses its margin and 1.6 m more. Half
        # starved (the least that is labelled) it has lost three quarters, which is enough for bubbles.
        margin = self._suction_m + 0.15 * self._tank.step(k) - 0.8 * (self._share * self._share - 1.0)
        margin = margin - starved * (2.0 - starved) * (self._suction_m + 1.6)
        bubbles = np.clip((CAVITATES_BELOW_M - margin) * (1.0 / 1.2), 0.0, 1.0)
        # C: bubbles take a third of the rig's flow. A: wear takes a tenth of the head.
        kept = (1.0 - 0.42 * bubbles) * (1.0 - 0.1 * worn)
        steepness = self._shut_off - 1.0
        friction = np.maximum(
            (self._shut_off * usual * usual - self._static) / (wanted * wanted) - steepness, 0.05
        )
        friction = friction * (1.0 + THROTTLED * closed * closed)
        held = converter_speed(self._shut_off, wanted, self._static, friction, kept)
        speed = np.where(self._converter, held, 1.0)
        # The water in the pipes follows with a lag.
        settled = self._pipes.step(flow_share(self._shut_off, speed, self._static, friction, kept))
        self._share = settled
        share = settled * (1.0 - 0.13 * bubbles * noise("bubbles", k))  # C: bubbles shake the rig's flow
        head = head_m(self._head_m, share, speed, self._shut_off) * kept
        eta = (
            efficiency(self._best, share, speed, self._shut_off)
            * (1.0 - 0.12 * bubbles)
            * (1.0 - 0.07 * worn)
        )  # A
        flow = self.rated_m3_h * share
        shaft_kw = running * WATER_KW * flow * head / eta
        power = shaft_kw / MOTOR_EFFICIENCY
        of_rated = power / self._rated_kw
        reactive = running * self._rated_kw * (MAGNETISING + REACTIVE_SLOPE * of_rated * of_rated)
        apparent = np.sqrt(power * power + reactive * reactive)
        current = apparent * (1000.0 / (math.sqrt(3.0) * VOLTAGE_V))
        unrest = self._shake.step(k)
        loose = self._looseness.step(k)
        # C: the rig's acceleration within minutes; A: slower changes, which its short runs do not have.
        shaking, unsteady = sway(0.022 * unrest + 0.08 * loose), sway(0.08 * unrest + 0.15 * loose)
        ambient = self._hall.temperature_c(t_ms)
        # A: 22 K above the hall at rated load, most of it from bearings and seal; wear of the wet end adds.
        load = shaft_kw / (WATER_KW * self.rated_m3_h * self._head_m / self._best)
        body = self._warmth.step(ambient + running * (8.0 + 14.0 * load + 3.0 * bubbles))
        fluid = (
            self._fluid_c + 0.15 * (self._hall.weather.outdoor_c(t_ms) - 13.5) + 0.8 * self._fluid.step(k)
        )  # A
        once = 0.4 * self._vibration * (1.0 + 1.8 * imbalance)  # A: the part at the frequency of rotation
        rest = 0.9 * self._vibration * (1.0 + 1.0 * bubbles)
        return {
            "flow": running * flow * (1.0 + 0.004 * noise("flow", k)),
            "head": running * head,
            # A: reckoned from three meters.
            "efficiency": running * 100.0 * eta * (1.0 + 0.01 * noise("meters", k)),
            # C: imbalance shakes the rig's casing 2.8 times as much, and does not warm it.
            # S: 0.3 g in order, 0.8-1.5 g cavitating; A: a pump at standstill feels the floor.
            "casing_accel": 0.01
            + running
            * shaking
            * (self._accel * (1.0 + 1.8 * imbalance) + 0.95 * bubbles * (1.0 + 0.2 * unrest)),
            "NPSHa_margin": np.where(running > 0.0, margin, self._suction_m + 0.8),
            "power_in": power,
            "current": current * (1.0 + CURRENT_NOISE * noise("current", k)),
            "speed": running
            * SYNCHRONOUS_RPM
            * speed
            * (1.0 - 0.02 * np.maximum(load, 0.0))
            * (1.0 + 0.0015 * noise("tachometer", k)),  # A
            "discharge_pressure": SUCTION_KPA
            + running * 9.81 * head * (1.0 + 0.005 * noise("gauge", k)),  # A
            "vibration": 0.02 + running * np.sqrt(once * once + rest * rest) * unsteady,
            "vibration_1x": 0.01 + running * once * unsteady,
            "body_temp": body + 0.25 * self._body_noise.step(k),
            "fluid_temp": fluid,
            **self._meters.step(k, power, GRID_KG_PER_KWH * power),
        }
