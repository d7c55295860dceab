"""Screw compressors that load and unload between two limits of pressure, with a receiver and a cooler.

Work is adiabatic, P ∝ r^(2/7) − 1, scaled to the specific power at 0.7 MPa; the receiver's pressure is the
balance of what is made and what is drawn. Faults: a leaking intake or air end makes less air of the same
power, a fouled cooler warms, a leaking system draws air when nobody works. Marks of constants: S source
found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import numpy as np

from qilu_devices import exact
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, HeavyTailed, Streams, Values
from qilu_devices.shifts import Hall, Shifts

SIZES_KW = (7.5, 15.0, 22.0, 37.0, 55.0, 75.0, 90.0, 132.0)  # N: usual motor sizes
SIZE_WEIGHTS = (2.5, 3.0, 3.0, 3.0, 1.5, 1.0, 0.6, 0.4)  # A: small ones are many
FLOW_PER_KW = 24.0 / 132.0  # S: 24 m³/min at 132 kW
SPECIFIC_KW = (6.4, 6.6)  # S: kW per m³/min at 0.7 MPa g
REFERENCE_MPA = 0.7  # S: the definition of specific power
ATMOSPHERE_MPA = 0.101  # A
LOAD_MPA, UNLOAD_MPA = 0.64, 0.76  # A: within the catalogue's 0.60-0.80
HALF_BAND_MPA = 0.06  # C: of the two
FILL_MPA_S = 0.1 / 60.0  # A: a receiver rises by 0.1 MPa a minute when all air goes into it
UNLOADED_SHARE = 0.3  # A: power when unloaded, of loaded
LEAKS = (0.02, 0.1)  # A: of a sound system, of rated flow
RUN_ON_S = (120.0, 600.0)  # A: unloaded that long, the motor is switched off until pressure falls
# A: up to this size a pressure switch stops the motor at once, as in the measured train's; it is made for
# intermittent duty.
SWITCHED_UP_TO_KW, SWITCHED_DEMAND = 22.0, (0.1, 0.45)
FILTER_LIFE_MS = 2000 * 3_600_000  # A: hours between two oil filters
COOLING_TAU_S = 600.0  # A: of the oil while the fan blows
STANDING_TAU_S = 2.0 * 3600.0  # A: of a machine whose motor and fan are off


def work_ratio(p_gauge_mpa: Values) -> Values:
    """Adiabatic work at a discharge pressure over that at 0.7 MPa g."""

    def work(p_mpa: Values | float) -> Values:
        return exact.power(1.0 + np.asarray(p_mpa) / ATMOSPHERE_MPA, 2.0 / 7.0) - 1.0

    return np.asarray(work(p_gauge_mpa) / work(REFERENCE_MPA))


class Compressors:
    """The kernel of class `compressor`; see `qilu_devices.kernel.Kernel`.

    Equations::

        dp/dt = k·(made − drawn·min(p/p_load, 1))       the receiver's balance
        loads at 0.64 MPa, unloads at 0.76 MPa;  its motor is switched off after 2-10 min unloaded,
        of a small one (up to 22 kW) at once
        P = specific power·rated flow·w(p)·(1 loaded, 0.3 unloaded, 0 off)
        w(p) = ((1 + p/p0)^(2/7) − 1)/((1 + 0.7/p0)^(2/7) − 1)     adiabatic work over that at 0.7 MPa
        T: first-order after inlet + (45 + 17·loaded + 18·cooler_fouling, at rest 0), 10 min, at rest 2 h
        filter pressure drop = (25 + 30·age + 40·filter_clog)·stiffness of the oil
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units, self._interval_s = units, interval_s
        self.size_kw = units.pick("size_kw", SIZES_KW, SIZE_WEIGHTS)
        self.rated_flow = self.size_kw * FLOW_PER_KW  # m³/min
        self._specific = units.uniform("specific", *SPECIFIC_KW)
        # A: of rated flow; most are larger than their works need.
        share, switched = units.uniform("demand"), self.size_kw <= SWITCHED_UP_TO_KW
        least, most = SWITCHED_DEMAND
        self._mean_demand = np.where(
            switched, least + (most - least) * share, 0.12 + 0.68 * share * np.sqrt(share)
        )
        self._leaks = units.uniform("leaks", *LEAKS)
        # A: a leak at its worst takes all that the works leave.
        self._spare = 1.03 - self._mean_demand - self._leaks
        # A: share that holds pressure outside working hours.
        self._always_on = units.uniform("always_on") < 0.7
        self._run_on_s = np.where(switched, 0.0, units.uniform("run_on", *RUN_ON_S))
        self._unloaded_s = np.zeros(len(units))
        self._filter_phase = (units.uniform("filter") * FILTER_LIFE_MS).astype(np.int64)
        self._shifts, self._hall = Shifts(units, enterprises), Hall(units, enterprises)
        self._demand = HeavyTailed(units, "demand", interval_s, 300.0)  # A: tools that blow
        self._orders = Autoregression(
            units, "orders", interval_s, 2.0 * 86_400.0
        )  # A: what is made these days
        self._oil = Autoregression(units, "oil", interval_s, 2.0 * 3600.0)  # A
        self._temperature: Values | None = None
        self._blown, self._standing = (
            float(1.0 - exact.exp(-interval_s / tau_s)) for tau_s in (COOLING_TAU_S, STANDING_TAU_S)
        )
        self._ratio = FirstOrder(interval_s, 600.0)  # A: what "over about ten minutes" means
        self._meters = Consumption(len(units), interval_s)
        self.pressure_mpa = LOAD_MPA + (UNLOAD_MPA - LOAD_MPA) * units.uniform("pressure")
        self.loaded = (units.uniform("loaded") < self._mean_demand).astype(np.float64)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        at_work = self._shifts.running(t_ms)
        on = controls.working(np.where(self._always_on, 1.0, at_work))
        flow = self.rated_flow * (1.0 - 0.15 * faults["intake_leak"])  # A: when loaded
        use = self._mean_demand * (1.0 + 0.25 * self._demand.step(k) + 0.12 * self._orders.step(k))
        wanted = at_work * np.clip(use, 0.03, 0.92)
        # C: with the leak of a measured system its compressor loads without end and holds 8 % less pressure.
        drawn = wanted + self._leaks + self._spare * faults["system_leak"]

        load_mpa = controls.value("pressure", LOAD_MPA, offset=-HALF_BAND_MPA)
        unload_mpa = controls.value("pressure", UNLOAD_MPA, offset=HALF_BAND_MPA)
        loaded = np.where(self.pressure_mpa <= load_mpa, 1.0, self.loaded)
        loaded = on * np.where(self.pressure_mpa >= unload_mpa, 0.0, loaded)
        if k > 0:
            # Leakage and consumption fall with pressure, so the balance never becomes negative.
            leaving = drawn * np.minimum(self.pressure_mpa / LOAD_MPA, 1.0)
            change = FILL_MPA_S * self._interval_s * (self.loaded * flow / self.rated_flow - leaving)
            self.pressure_mpa = np.clip(self.pressure_mpa + change, 0.0, 0.85)  # A: the safety valve
        self.loaded = loaded
        self._unloaded_s = np.where(loaded > 0.0, 0.0, self._unloaded_s + self._interval_s)
        turning = on * (self._unloaded_s <= self._run_on_s)

        loaded_kw = self._specific * self.rated_flow * work_ratio(np.maximum(self.pressure_mpa, 0.5))
        power = turning * loaded_kw * (loaded + UNLOADED_SHARE * (1.0 - loaded))
        inlet = self._hall.temperature_c(t_ms)
        # A: above the inlet by 62 K loaded and 45 K unloaded; a fouled cooler leaves 18 K more.
        rise = turning * (45.0 + 17.0 * loaded + 18.0 * faults["cooler_fouling"])
        if self._temperature is None:  # warm from the hours before, as its load then was
            duty = np.minimum(drawn, 1.0)
            cooling = COOLING_TAU_S / STANDING_TAU_S
            self._temperature = inlet + on * 62.0 * duty / (duty + cooling * (1.0 - duty))
        # A machine at rest stays warm for hours.
        share = np.where(turning > 0.0, self._blown, self._standing)
        self._temperature = temperature = self._temperature + share * (inlet + rise - self._temperature)
        age = ((t_ms + self._filter_phase) % FILTER_LIFE_MS) * (1.0 / FILTER_LIFE_MS)
        clog = 25.0 + 30.0 * age + 40.0 * faults["filter_clog"]  # A
        # A: cold oil is stiff; what else it carries comes and goes.
        stiff = (1.0 + 0.008 * (80.0 - temperature)) * exact.sway(0.18 * self._oil.step(k))
        noise = self._units.normal
        return {
            "discharge_pressure": self.pressure_mpa,
            "flow": loaded * flow * (1.0 + 0.005 * noise("flow", k)),
            "specific_power": loaded_kw / flow,
            "discharge_temp": temperature + 0.3 * noise("temperature", k),
            "oil_filter_dp": turning * clog * stiff * (1.0 + 0.02 * noise("filter", k)),
            "power_in": power,
            "loaded": loaded,
            "load_ratio": 100.0 * self._ratio.step(loaded if k else np.minimum(drawn, 1.0) * on),
            "inlet_temp": inlet,
            **self._meters.step(k, power, GRID_KG_PER_KWH * power),
        }
