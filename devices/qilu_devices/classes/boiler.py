"""Industrial boilers up to 65 t/h, fired with coal or gas: ṁ·Δh = η·B·Q, excess air = O2/(21 − O2), flue
temperature rising with load. Some heat buildings by the weather, some follow their works' shifts, the large
ones run until their yearly overhaul.

Faults: air the fire does not need and dirty or scaled tubes let heat go up the stack, a leaking tube takes
water and wets the gas, a dead cleaning stage lets NOx or SO2 pass. Marks of constants: S source found, C
computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import numpy as np

from qilu_devices import exact
from qilu_devices.calendar import day_of, is_heating_season
from qilu_devices.climate import local_hour
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import COAL_KG_PER_GJ, GJ_PER_KWH, NATURAL_GAS_KG_PER_GJ
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values
from qilu_devices.shifts import Shifts
from qilu_devices.steam import saturation_c, steam_enthalpy, water_enthalpy
from qilu_devices.weather import weather_of

# Sizes in t/h with their set pressure (MPa g) and superheat temperature (0: saturated steam). Sizes N (GB
# 13271 ends at 65 t/h); pressures and temperatures are usual for the size (A).
SIZES_TPH = (1.0, 2.0, 4.0, 6.0, 10.0, 15.0, 20.0, 35.0, 65.0)
SIZE_WEIGHTS = (1.0, 1.5, 2.0, 2.0, 2.5, 1.5, 1.5, 0.8, 0.4)  # A
_SET_MPA = np.array([0.8, 1.0, 1.25, 1.25, 1.25, 1.25, 1.6, 2.45, 3.7])
_SUPERHEAT_C = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 350.0, 400.0, 440.0])
DEAERATED_FROM_TPH = 6.0  # A: smaller boilers have no deaerator and take colder water
MIN_LOAD, MAX_LOAD = 0.3, 1.0  # A
LOAD_TAU_S = 1800.0  # A
LEAST_FIRE = 0.1  # A: below, the balance of losses over load means nothing
FIRE_TAU_S, VESSEL_TAU_S = 300.0, 5400.0  # A: how fast grate and flue, and water and steel, go cold
AIR_O2 = 20.9  # N: vol%
BLOWDOWN = 1.02  # A: feedwater over steam when nothing leaks

COAL_LHV_KJ_KG = 22_000.0  # A: lower heating value of steam coal
GAS_LHV_KJ_KG = 48_000.0  # N: of natural gas
GAS_UP_TO_TPH, GAS_SHARE = 20.0, 0.35  # A: small coal boilers were replaced by gas
HEATING_SHARE = 0.3  # A: of boilers, those that heat buildings
BASE_C, COLDEST_C = 18.0, -9.0  # A: heat is wanted below the one, and all of a boiler's at the other
CONTINUOUS_FROM_TPH = 20.0  # A: larger boilers run day and night, whatever their works' shifts
BY_THE_WAY = 0.04  # C: a campus's heating boiler was lit 4 % of June, for hot water and tests
OVERHAUL_DAYS = 12.0  # A: a year
FLUE_LOSS_PER_K = (
    0.05 / 100.0
)  # S: +20 °C of flue gas costs about 1 % of the fuel, at the reference excess air
REFERENCE_O2 = 9.0  # N: GB 13271, coal
OTHER_LOSSES = 0.055  # A: unburnt, ash and radiation at full load
RADIATION_LOSS = 0.01  # A: the part of it that does not shrink with load


def excess_air(o2: Values) -> Values:
    """O2/(21 − O2), from dry flue gas in vol%."""
    return np.asarray(o2 / (21.0 - o2))


def efficiency(load: Values, flue_c: Values, o2: Values, ambient_c: Values) -> Values:
    """Share of the fuel's heat that becomes steam: flue loss grows with temperature and excess air, radiation
    at low load."""
    air = (1.0 + excess_air(o2)) / (1.0 + excess_air(np.full_like(o2, REFERENCE_O2)))
    flue_loss = FLUE_LOSS_PER_K * (flue_c - ambient_c) * air
    return np.asarray(1.0 - flue_loss - (OTHER_LOSSES - RADIATION_LOSS) - RADIATION_LOSS / load)


class Boilers:
    """The kernel of class `boiler`; see `qilu_devices.kernel.Kernel`. After a step, `efficiency` and
    `fuel_kg_h` hold the heat balance that the step's signals obey.

    Equations::

        D·Δh = η·B·Q                                    steam·enthalpy rise = efficiency·fuel·heating value
        Δh = h_steam(p, T) − h_water(T_feed)            fitted to the steam tables (`qilu_devices.steam`)
        excess air α = O2/(21 − O2)
        η = 1 − k·(T_flue − T_ambient)·(1 + α)/(1 + α_ref) − losses − radiation/load
        T_flue = T_full − a·(1 − load) + 20·(α − α_full) + 40·fouling + 18·scale;  a 36 gas, 60 coal
        load: first-order after demand: of the process by hour and orders, of heating (18 °C − T_outdoor)/27
        lit: heating from 15 November to 15 March and below a temperature; process by shifts and overhaul
        drum level = noise + 150·(demand − load) − 10·leak
        feedwater = steam·blow-down + leak;  tube = T_steam + 15 + 20·load + 30·scale·load
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self.size_tph = units.pick("size_tph", SIZES_TPH, SIZE_WEIGHTS)
        index = np.searchsorted(np.asarray(SIZES_TPH), self.size_tph)
        self._set_mpa, self._superheat_c = _SET_MPA[index], _SUPERHEAT_C[index]
        self.is_gas = (units.uniform("fuel") < GAS_SHARE) & (self.size_tph <= GAS_UP_TO_TPH)
        self.lhv_kj_kg = np.where(self.is_gas, GAS_LHV_KJ_KG, COAL_LHV_KJ_KG)
        self._co2_kg_kwh = GJ_PER_KWH * np.where(self.is_gas, NATURAL_GAS_KG_PER_GJ, COAL_KG_PER_GJ)
        self._heats = units.uniform("heating") < HEATING_SHARE
        self._shifts, self._weather = Shifts(units, enterprises), weather_of(enterprises)
        # A: where several boilers heat together, each is lit below a different outdoor temperature.
        self._lit_below_c = units.uniform("lit_below", -1.0, 15.0)
        self._overhaul = units.uniform("overhaul", 0.0, 365.25)
        self._is_on: Values | None = None
        self._day_shift = enterprises.uniform("day_shift") < 0.5  # A: share whose steam is used by day
        self._mean_load = units.uniform("mean_load", 0.55, 0.8)  # A
        deaerated = self.size_tph >= DEAERATED_FROM_TPH
        self._feed_c = np.where(
            deaerated, units.uniform("feed", 102.0, 106.0), units.uniform("feed", 64.0, 90.0)
        )
        gas = self.is_gas
        # A: about the nominal 7 for coal; a gas burner needs less air. C: a gas boiler's O2 falls by .9 % and
        # its exhaust warms by 25 K from a third of its load to all of it; a grate's by more (A).
        self._o2 = units.uniform("o2", 6.0, 8.0) - np.where(gas, 2.5, 0.0)
        self._more_o2, self._cooler_c = np.where(gas, 1.3, 2.4), np.where(gas, 36.0, 60.0)
        # A: at full load, fouling differs.
        self._flue_c = units.uniform("flue", 145.0, 165.0) - np.where(gas, 25.0, 0.0)
        self._nox = units.uniform("nox", 40.0, 60.0) * np.where(
            gas, 0.55, 1.0
        )  # A: below the limit of 100 (N)
        self._so2 = units.uniform("so2", 8.0, 21.0) * np.where(gas, 0.25, 1.0)  # A: below the limit of 50 (N)
        self._pm = units.uniform("pm", 3.0, 6.5) * np.where(gas, 0.4, 1.0)  # A: below the limit of 10 (N)
        self._all = np.arange(len(units))
        self._load = Autoregression(units, "load", interval_s, LOAD_TAU_S)
        self._orders = Autoregression(units, "orders", interval_s, 2.0 * 86_400.0)  # A
        self._pressure = Autoregression(units, "pressure", interval_s, 300.0)  # A
        self._air = Autoregression(units, "air", interval_s, 120.0)  # A: the draught control hunts
        self._steam = Autoregression(units, "steam_temp", interval_s, 240.0)  # A
        self._feed = Autoregression(units, "feed_temp", interval_s, 1800.0)  # A
        self._clean = Autoregression(units, "clean", interval_s, 900.0)  # A: flue gas cleaning
        self._level = Autoregression(units, "level", interval_s, 40.0)  # A
        self._lot = Autoregression(units, "coal", interval_s, 1.5 * 86_400.0)  # A: what the yard delivers
        self._tubes = Autoregression(units, "tubes", interval_s, 900.0)  # A: flames lick here and there
        self._keep_demand = float(
            exact.exp(-interval_s / 120.0)
        )  # A: the fire follows demand within two minutes
        self._fire, self._vessel = FirstOrder(interval_s, FIRE_TAU_S), FirstOrder(interval_s, VESSEL_TAU_S)
        self._meters = Consumption(len(units), interval_s)
        self.load: Values | None = None
        self.efficiency = np.ones(len(units))
        self.fuel_kg_h = np.zeros(len(units))

    def _lit(self, t_ms: Times, outdoor: Values) -> Values:
        """1 for boilers that their works or the weather want lit, else 0."""
        day = day_of(t_ms)
        by_the_way = self._units.chance_of("by_the_way", self._all, day) < BY_THE_WAY
        # A: one kelvin between lighting and putting out, so that a boiler is not lit every hour.
        before = np.zeros(len(day)) if self._is_on is None else self._is_on
        cold = outdoor < self._lit_below_c + 1.0 * before
        heating = (is_heating_season(day) & cold) | by_the_way
        mended = np.mod(day - self._overhaul, 365.25) < OVERHAUL_DAYS
        works = np.where(self.size_tph >= CONTINUOUS_FROM_TPH, 1.0, self._shifts.running(t_ms))
        on = np.where(self._heats, heating, (works > 0.0) & ~mended).astype(np.float64)
        self._is_on = on
        return on

    def _demand(self, k: int, t_ms: Times, outdoor: Values, controls: Controls) -> Values:
        hour = local_hour(t_ms)
        by_day = np.where(self._day_shift, 0.12 * exact.cos_turns((hour - 14.0) / 24.0), 0.0)  # A
        process = self._mean_load + by_day
        heating = (BASE_C - outdoor) * (1.0 / (BASE_C - COLDEST_C))
        chance = 0.05 * self._load.step(k) + 0.05 * self._orders.step(k)  # A: batches, and orders of days
        wanted = np.where(self._heats, heating, process) + chance
        return np.clip(controls.value("load", wanted, 0.01), MIN_LOAD, MAX_LOAD)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        ambient = self._weather.outdoor_c(t_ms)
        on = controls.working(self._lit(t_ms, ambient))
        lit, hot = self._fire.step(on), self._vessel.step(on)
        demand = on * hot * self._demand(k, t_ms, ambient, controls)
        before = demand if self.load is None else self.load
        self.load = load = self._keep_demand * before + (1.0 - self._keep_demand) * demand
        lag = demand - load  # > 0: more steam is drawn than the fire makes

        pressure = self._set_mpa * (1.0 + 0.008 * self._pressure.step(k) - 0.1 * lag)  # A
        saturation = saturation_c(pressure)
        superheated = self._superheat_c + 2.0 * self._steam.step(k)  # A
        steam_c = np.where(self._superheat_c > 0.0, np.maximum(superheated, saturation), saturation)
        feed_c = self._feed_c + 1.0 * self._feed.step(k)  # A
        steam_tph = self.size_tph * load

        leak = faults["tube_leak"]
        lot = self._lot.step(k)  # > 0: drier fuel, with less sulphur; it leaves more air unused
        # A: more excess air at low load; 3 vol% more from a bad setting, 1 from a draught that fights
        # steam.
        o2 = (
            self._o2
            + self._more_o2 * (1.0 - load)
            + 0.3 * self._air.step(k)
            + 0.35 * lot
            + 3.0 * faults["excess_air"]
            + 1.0 * leak
        )
        # A: 10 K more for each tenth of excess air above the nominal.
        flue_c = (
            self._flue_c
            - self._cooler_c * (1.0 - load)
            + 20.0 * (excess_air(o2) - excess_air(self._o2))
            + self._units.normal("flue_noise", k)
            + 40.0 * faults["fouling"]  # S: up to 40 K (ABMA), oxygen unchanged
            + 18.0 * faults["scale"]  # A
        )
        self.efficiency = efficiency(np.maximum(load, LEAST_FIRE), flue_c, o2, ambient)
        heat_kj_h = 1000.0 * steam_tph * (steam_enthalpy(pressure, steam_c) - water_enthalpy(feed_c))
        self.fuel_kg_h = heat_kj_h / (self.efficiency * self.lhv_kj_kg)
        fuel_kw = self.fuel_kg_h * (self.lhv_kj_kg * (1.0 / 3600.0))
        lost_tph = 0.08 * leak * self.size_tph  # A: up to 8 % of the boiler's size

        # A: dosing of ammonia and lime hunts, and so does what the filter lets through.
        cleaning = self._clean.step(k)
        clean = exact.sway(0.14 * cleaning)
        fire = fuel_kw * (3600.0 / COAL_LHV_KJ_KG) / self.size_tph
        hotter = 1.0 + 0.15 * (load - 0.7) + 0.03 * (o2 - self._o2)  # A: NOx grows with the fire and with air
        out, cold = 1.0 - lit, 1.0 - hot  # 0 in operation, 1 when it has stood for hours
        return {
            "steam_flow": steam_tph,
            "steam_pressure": pressure * hot,
            "steam_temp": steam_c - cold * (steam_c - ambient),
            "feedwater_temp": feed_c - cold * (feed_c - ambient),
            "flue_O2": o2 + out * (AIR_O2 - o2),
            "flue_temp": flue_c - out * (flue_c - ambient),
            # A: without ammonia NOx is twice the usual: its injection removes up to a half (N).
            "NOx": self._nox * hotter * clean * (1.0 + 1.0 * faults["denitration_failure"]) * lit,
            # A: sulphur comes with the coal. Without one of its spray levels a scrubber lets 12 % through
            # instead of 5 %.
            "SO2": self._so2
            * exact.sway(0.2 * cleaning)
            * (0.9 + 0.0008 * fire)
            * exact.sway(-0.2 * lot)
            * (1.0 + 1.4 * faults["desulphurisation_failure"])
            * lit,
            "PM": self._pm * clean * (0.85 + 0.2 * load) * lit,  # A
            # A: ±8 mm of control noise; a drum swells when steam is drawn and shrinks when it is not.
            "drum_level": 8.0 * self._level.step(k) * (1.0 + 1.5 * leak) + 150.0 * lag - 10.0 * leak,
            "feedwater_flow": steam_tph * BLOWDOWN + lost_tph * hot,
            # A: the tube's metal is warmer than the steam by its load, and by the scale that insulates it.
            "tube_temp": steam_c
            - cold * (steam_c - ambient)
            + 15.0 * lit
            + 20.0 * load
            + 3.0 * self._tubes.step(k) * lit
            + 30.0 * faults["scale"] * load,
            # A
            "flue_moisture": (
                8.0 - 0.5 * (o2 - self._o2) + 0.2 * self._units.normal("moisture", k) - 0.7 * lot + 3.0 * leak
            )
            * lit,
            "fuel_flow": self.fuel_kg_h,
            "efficiency": 100.0 * self.efficiency * lit,
            **self._meters.step(k, fuel_kw, fuel_kw * self._co2_kg_kwh),
        }
