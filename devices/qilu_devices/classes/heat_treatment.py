"""Pasteurisers and ovens: heat treatment of food.

A pasteuriser holds the product at 72 °C for 15 s (HTST, S); heat is Q = ṁ·c·ΔT·(1 − R) with the regeneration
R, and the flow diversion valve sends back what is colder than 72 °C. An oven's burner gives what the product
takes and the walls lose. Faults: fouling hinders flow and heat, a weak heater or a fast pump break the law of
time and temperature; a bad burner hunts, a leaking door loses heat, a dead fan leaves hot and cold places.
Marks of constants: S source found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import numpy as np

from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GJ_PER_KWH, NATURAL_GAS_KG_PER_GJ
from qilu_devices.exact import cos_turns, sway
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values
from qilu_devices.shifts import Hall, Shifts

LEGAL_C, LEGAL_S = 72.0, 15.0  # S: HTST
PRODUCT_C = 4.0  # S: raw milk comes cold
HEAT_KJ_KG_K, DENSITY = 3.93, 1030.0  # N: milk
PASTEURISER_M3_H = (3.0, 5.0, 10.0, 15.0, 25.0)  # A
PASTEURISER_WEIGHTS = (1.0, 2.0, 3.0, 2.0, 1.0)  # A
BOILER_EFFICIENCY = 0.9  # A: of the gas boiler that makes the hot water

OVEN_KW = (150.0, 400.0)  # A: rated power of a tunnel oven's burners
BURNER_PERIOD_MS = 90_000  # A: a bad burner hunts once in 90 s


def heating_duty_kw(flow_m3_h: Values, hold_c: Values, regeneration: Values) -> Values:
    """Heat to bring the product from cold to the holding temperature, less what outgoing product gives."""
    kg_s = flow_m3_h * (DENSITY / 3600.0)
    return np.asarray(kg_s * HEAT_KJ_KG_K * np.maximum(hold_c - PRODUCT_C, 0.0) * (1.0 - regeneration))


class Pasteurisers:
    """The kernel of class `pasteuriser`; see `qilu_devices.kernel.Kernel`.

    Equations::

        Q = m·c·(T_hold − 4 °C)·(1 − R)                 m mass flow, c 3.93 kJ/(kg K), R regeneration
        T_hold: first-order after set point − 2.6·under_temperature
        hold time = t0·rated flow/flow;  diversion = T_hold < 72 °C
        Δp = (flow/rated)²·(Δp0 + 22·fouling);  R: first-order after R0·(1 − 0.015·fouling)
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self._shifts, self._hall = Shifts(units, enterprises), Hall(units, enterprises)
        self.rated_m3_h = units.pick("rated", PASTEURISER_M3_H, PASTEURISER_WEIGHTS)
        self._set_c = units.uniform("set", 73.1, 73.9)  # A: a little above the law
        self._hold_s = units.uniform("hold", 15.8, 16.5)  # A: holding tube at rated flow
        self._regeneration = units.uniform("regeneration", 0.885, 0.92)  # S: 89.7 % in a published balance
        self._dp_kpa = units.uniform("dp", 108.0, 135.0)  # A
        self._control = Autoregression(units, "control", interval_s, 20.0)  # A
        self._feed = Autoregression(units, "feed", interval_s, 120.0)  # A
        self._thick = Autoregression(units, "thick", interval_s, 3600.0)  # A
        self._heat = FirstOrder(interval_s, 120.0)  # A
        self._outgoing = FirstOrder(interval_s, 90.0)  # A: hot product on its way through the regenerator
        self._meters = Consumption(len(units), interval_s)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        fouling, cold, fast = faults["fouling"], faults["under_temperature"], faults["pump_overspeed"]
        running = controls.working(self._shifts.running(t_ms))
        flow = running * self.rated_m3_h * (1.0 + 0.013 * self._feed.step(k)) * (1.0 + 0.12 * fast)  # A
        hall = self._hall.temperature_c(t_ms)
        # A: a weak heater leaves up to 2.6 K.
        wanted = controls.value("hold_temp", self._set_c) - 2.6 * cold
        base = self._heat.step(np.where(running > 0.0, wanted, hall))
        hold_c = base + running * 0.2 * self._control.step(k)  # A
        # Nothing comes back from product that is not yet hot: a cold start takes more heat than running does.
        regeneration = self._regeneration * (1.0 - 0.015 * fouling) * self._outgoing.step(running)  # A
        relative = flow / self.rated_m3_h
        duty = heating_duty_kw(flow, hold_c, regeneration)
        hold_s = np.where(running > 0.0, self._hold_s / np.maximum(relative, 0.1), 0.0)
        gas_kw = duty / BOILER_EFFICIENCY
        return {
            "hold_temp": hold_c,
            "hold_time": hold_s,
            "diversion": (hold_c < LEGAL_C).astype(np.float64),
            "regeneration": np.maximum(
                100.0 * (regeneration + 0.002 * self._units.normal("regeneration", k)), 0.0
            ),
            # A: milk is thicker when it comes colder.
            "dp_product": relative
            * relative
            * (self._dp_kpa * (1.0 + 0.02 * self._thick.step(k)) + 22.0 * fouling),
            "product_flow": flow,
            "heating_duty": duty,
            **self._meters.step(k, duty, gas_kw * (GJ_PER_KWH * NATURAL_GAS_KG_PER_GJ)),
        }


class Ovens:
    """The kernel of class `oven`; see `qilu_devices.kernel.Kernel`.

    Equations::

        burner = (0.25 + 0.12·door_leak)·w + 0.0045·belt·w + 0.004·(T_set − T) + burner·(0.03 + 0.15·cos),
        of rated power
        w = (T_zone − T_hall)/200
        T_zone: first-order after the set point, at rest after the hall; the burner's fault swings it by 2.4 K
        exhaust: first-order after T_hall + (T − T_hall)·(0.68 − 0.06·door_leak)
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self._shifts, self._hall = Shifts(units, enterprises), Hall(units, enterprises)
        self.rated_kw = units.uniform("rated", *OVEN_KW)
        self._set_c = units.uniform("set", 195.0, 245.0)  # A: 180-260
        self._spread_c = units.uniform("spread", 2.5, 6.0)  # A
        self._belt_load = units.uniform("belt", 55.0, 85.0)  # A: %
        self._belt = Autoregression(units, "belt", interval_s, 600.0)  # A
        self._control = Autoregression(units, "control", interval_s, 30.0)  # A
        self._heat = FirstOrder(interval_s, 900.0)  # A
        self._exhaust = FirstOrder(interval_s, 300.0)  # A
        self._places = Autoregression(units, "places", interval_s, 300.0)  # A: trays shade the air
        self._draught = Autoregression(units, "draught", interval_s, 900.0)  # A: the flue's damper
        self._meters = Consumption(len(units), interval_s)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        hunting, door, fan = faults["burner"], faults["door_leak"], faults["fan_failure"]
        running = controls.working(self._shifts.running(t_ms))
        hall = self._hall.temperature_c(t_ms)
        # A: a burner that hunts swings by 15 % of its power and burns badly; the zone is a quarter of a
        # turn behind.
        turn = (t_ms % BURNER_PERIOD_MS) * (1.0 / BURNER_PERIOD_MS)
        set_c = controls.value("zone_temp", self._set_c)
        base = self._heat.step(np.where(running > 0.0, set_c, hall))
        swing = 2.4 * hunting * cos_turns(turn - 0.25)
        zone = base + running * (0.5 * self._control.step(k) + swing)
        belt = running * np.clip(self._belt_load + 4.0 * self._belt.step(k), 0.0, 100.0)
        warm = (zone - hall) * (1.0 / 200.0)
        # A: walls and exhaust take a quarter of rated power at 200 K, the product up to 45 %, warming the
        # rest.
        lost = (0.25 + 0.12 * door) * warm
        warming = np.maximum(set_c - base, 0.0) * 0.004
        fired = running * (lost + 0.0045 * belt * warm + warming + hunting * (0.03 + 0.15 * cos_turns(turn)))
        burner = np.clip(100.0 * fired, 0.0, 100.0)
        gas_kw = self.rated_kw * burner * 0.01
        exhaust = self._exhaust.step(hall + (base - hall) * (0.68 - 0.06 * door))  # A
        return {
            "zone_temp": zone,
            "zone_spread": running * self._spread_c * sway(0.25 * self._places.step(k)) + running * 9.0 * fan,
            "burner_load": burner,
            "exhaust_temp": exhaust + running * 2.0 * self._draught.step(k),
            "belt_load": belt,
            **self._meters.step(k, gas_kw, gas_kw * (GJ_PER_KWH * NATURAL_GAS_KG_PER_GJ)),
        }
