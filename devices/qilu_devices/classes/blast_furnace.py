"""Blast furnaces: one balance of carbon, nitrogen and hydrogen for top gas and output, η_CO = CO2/(CO + CO2),
permeability = V/ΔP, a hearth that lags the burden, and stops.

The blast is off for some hours every third day, and coal injection comes back some hours after it. Faults: a
hanging burden resists the blast and stops, a slip lets it fall through hot, a channel lets gas pass unused,
leaking water becomes hydrogen and cools the metal, as a chilled hearth does. Marks of constants: S source
found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import numpy as np

from qilu_devices import exact
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import CO2_PER_CARBON, GRID_KG_PER_KWH
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values

COKE_CARBON, COAL_CARBON = 0.87, 0.78  # A: mass shares of carbon in coke and injected coal
HOT_METAL_CARBON_KG = 45.0  # N: 4.5 % of carbon in hot metal
DIRECT_REDUCTION_KG = 110.0  # A: carbon per tonne that reduces oxide without meeting the blast
NM3_PER_KMOL = 22.414
COAL_HYDROGEN, COKE_HYDROGEN = 0.04, 0.004  # A: mass shares of hydrogen
HYDROGEN_NM3_PER_KG, STEAM_NM3_PER_KG = 11.12, 1.244  # C: hydrogen of a kilogram of hydrogen, of water
HYDROGEN_LEFT = 0.52  # A: the rest reduces oxide and leaves as steam, which dry gas does not show
HUMIDITY_KG = 11.0  # A: water that the blast brings, a tonne of metal
# A: steam to the blast where coal is off, so that the flame does not get too hot; a tonne of metal.
STEAM_KG = 45.0
LEAK_KG = 30.0  # A: water from a leaking stave or tuyere, a tonne of metal
MEAN_FUEL_KG, MEAN_ETA = 519.0, 0.47  # S: 2009 average; A
HEARTH_TAU_S = 4.0 * 3600.0  # A: hot metal lags the burden by 2-6 h
BLOWER_LIMIT = 2.28  # A: Nm³/min for each m³ of furnace
OUTPUT_TAU_S = 12.0 * 3600.0  # A: productivity is a figure of the day, not of the minute

SIZES_M3 = (450.0, 1080.0, 1780.0, 2500.0, 3200.0)  # A: usual working volumes
SIZE_WEIGHTS = (1.0, 3.0, 3.0, 2.0, 1.0)  # A
BLOWER_EFFICIENCY = 0.8  # A: adiabatic
# C: a measured furnace had 61 stops in six months, one each 72 h, and no coal for 10 % of the time: 7.2 h a
# stop. A: half of them without blast, as long again until coal burns.
STOP_EACH_MS = 72 * 3_600_000
STOP_H, LONGEST_STOP_H, WITHOUT_COAL_H = (1.0, 2.6), 16.0, 3.6
FALL_TAU_S, RISE_TAU_S = 300.0, 2400.0  # A: how fast the blast is taken off and comes back
ATMOSPHERE_KPA = 101.0  # A


def carbon_kg(coke_kg: Values, coal_kg: Values) -> Values:
    """Carbon of the fuel per tonne of hot metal."""
    return coke_kg * COKE_CARBON + coal_kg * COAL_CARBON


def blast_nm3_per_t(carbon: Values, oxygen_share: Values) -> Values:
    """Blast needed for a tonne of hot metal: carbon at the tuyeres burns to CO with the blast's oxygen."""
    burnt = carbon - HOT_METAL_CARBON_KG - DIRECT_REDUCTION_KG
    return burnt / 12.011 * NM3_PER_KMOL / 2.0 / oxygen_share


def hydrogen_nm3(coke_kg: Values, coal_kg: Values, water_kg: Values) -> Values:
    """Hydrogen in top gas per tonne of hot metal, from fuel and from water that met the coke."""
    from_fuel = HYDROGEN_NM3_PER_KG * (coke_kg * COKE_HYDROGEN + coal_kg * COAL_HYDROGEN)
    return HYDROGEN_LEFT * (from_fuel + STEAM_NM3_PER_KG * water_kg)


def top_gas_percent(carbon: Values, oxygen_share: Values, hydrogen: Values) -> tuple[Values, Values, Values]:
    """CO + CO2, hydrogen and nitrogen in vol% of dry top gas, together 100: all carbon that does not leave
    with the metal, the hydrogen (Nm³ per tonne) and the blast's nitrogen."""
    gas = (carbon - HOT_METAL_CARBON_KG) / 12.011 * NM3_PER_KMOL
    nitrogen = blast_nm3_per_t(carbon, oxygen_share) * (1.0 - oxygen_share)
    percent = 100.0 / (gas + nitrogen + hydrogen)
    return gas * percent, hydrogen * percent, nitrogen * percent


def blower_kw(nm3_per_min: Values, pressure_kpa: Values) -> Values:
    """Electric power of the blower: adiabatic compression of diatomic gas from the atmosphere,
    3.5·p0·V0·(r^(2/7) − 1)."""
    ratio = 1.0 + pressure_kpa / ATMOSPHERE_KPA
    work = 3.5 * 101.325 * (nm3_per_min / 60.0) * (exact.power(ratio, 2.0 / 7.0) - 1.0)
    return np.asarray(work / BLOWER_EFFICIENCY)


class BlastFurnaces:
    """The kernel of class `blast_furnace`; see `qilu_devices.kernel.Kernel`.

    Equations::

        V = V0·(1 + a)·(1 − 0.1·hanging)                blast per m³ of furnace; a autoregressive
        ΔP = R·(V/V0)^1.8·(1 + b)·(1 + 0.35·hanging)·(1 − 0.12·channelling)
        permeability = V/ΔP;  blast pressure = top pressure + ΔP
        C = 0.87·coke + 0.78·coal                       carbon of the fuel, kg a tonne of metal
        blast per tonne = (C − C_metal − C_direct)/12.011·22.414/2/O2 share
        productivity = V·1440/(blast per tonne), first-order
        CO + CO2 + H2 + N2 = 100 %:  (C − C_metal)/12.011·22.414 of carbon, nitrogen of the blast,
        H2 = 0.52·(11.12·hydrogen of coke and coal + 1.244·water of humidity, steam and leak), Nm³ a tonne
        η_CO = CO2/(CO + CO2)
        hearth: dx/dt = (x∞ − x)/τ, x∞ from fuel and burden, τ 4 h
        hot metal = T0 + 7·x;  Si = 0.45 + 0.12·x/(1 + 0.3·max(−x, 0)) + 0.06·cast
        stops: blast off for 1-16 h in every 72, coal for 3.6 h more
        blower: P = 3.5·p0·V·(r^(2/7) − 1)/η
        CO2 = metal·(C − C_metal)·44.01/12.011 + blower·grid factor
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        # A: levels that differ from furnace to furnace, about the catalogue's nominal values.
        self._blast_c = units.uniform("blast_c", 1135.0, 1185.0)
        self._volume = units.uniform("volume", 1.88, 2.12)
        self._resistance_kpa = units.uniform("resistance", 138.0, 162.0)
        self._top_kpa = units.uniform("top", 185.0, 212.0)
        self._oxygen = units.uniform("oxygen", 2.2, 3.8)
        self._fuel = units.uniform("fuel", 513.0, 525.0)
        self._coal = units.uniform("coal", 142.0, 156.0)
        self._eta = units.uniform("eta", 0.462, 0.478)
        self._top_c = units.uniform("top_c", 160.0, 195.0)
        self._metal_c = units.uniform("metal_c", 1492.0, 1503.0)
        self._stave_c = units.uniform("stave_c", 52.0, 70.0)
        self.volume_m3 = units.pick("volume_m3", SIZES_M3, SIZE_WEIGHTS)
        self._spread_c = units.uniform("spread_c", 25.0, 55.0)
        self._coal_hydrogen = units.uniform("hydrogen", 0.8, 1.2)  # A: of the usual, by the mine
        self._stop_phase = (units.uniform("stop_phase") * STOP_EACH_MS).astype(np.int64)
        self._all = np.arange(len(units))
        self._stop: tuple[Times, Times, Times, Times] | None = None
        hour = 3600.0
        # A: how long blast, burden, gas flow and hearth remember.
        self._stove = Autoregression(units, "stove", interval_s, 1.0 * hour)
        # C: two furnaces' volume has a CV of 5 % and correlates by .56 from one day to the next, top pressure
        # and hydrogen by .71.
        self._wind = Autoregression(units, "wind", interval_s, 4.0 * hour)
        self._campaign = Autoregression(units, "campaign", interval_s, 70.0 * hour)
        self._top_valve = Autoregression(units, "top_valve", interval_s, 120.0 * hour)
        self._moisture = Autoregression(units, "moisture", interval_s, 110.0 * hour)
        self._day_gas = Autoregression(units, "day_gas", interval_s, 48.0 * hour)
        self._heat = Autoregression(units, "top_heat", interval_s, 30.0 * hour)
        self._burden = Autoregression(units, "burden", interval_s, 3.0 * hour)
        self._enrich = Autoregression(units, "enrich", interval_s, 4.0 * hour)
        self._gas = Autoregression(units, "gas", interval_s, 3.0 * hour)
        self._control = Autoregression(units, "control", interval_s, 12.0 * hour)
        self._inject = Autoregression(units, "inject", interval_s, 8.0 * hour)
        self._quality = Autoregression(units, "quality", interval_s, 6.0 * hour)
        self._throat = Autoregression(units, "throat", interval_s, 600.0)
        self._wall = Autoregression(units, "wall", interval_s, 1.0 * hour)
        self._uptakes = Autoregression(units, "uptakes", interval_s, 2.0 * hour)
        self._flow_meter = Autoregression(units, "flow_meter", interval_s, 600.0)
        self._fall, self._rise = (
            float(1.0 - exact.exp(-interval_s / tau_s)) for tau_s in (FALL_TAU_S, RISE_TAU_S)
        )
        self._blast: Values | None = None
        self._injects = FirstOrder(interval_s, RISE_TAU_S)
        self._purged = FirstOrder(interval_s, 900.0)  # A: gas left in the furnace when the blast is off
        self._hearth = FirstOrder(interval_s, HEARTH_TAU_S)
        self._output = FirstOrder(interval_s, OUTPUT_TAU_S)
        self._meters = Consumption(len(units), interval_s)

    def _stops(self, t_ms: Times) -> tuple[Values, Values]:
        """1 for furnaces whose blast, and whose coal injection, is to be on."""
        number = (t_ms + self._stop_phase) // STOP_EACH_MS
        if self._stop is None or not np.array_equal(number, self._stop[0]):
            hour_ms = 3_600_000.0
            least_h, more_h = STOP_H
            room_ms = STOP_EACH_MS - (LONGEST_STOP_H + WITHOUT_COAL_H) * hour_ms
            begin = number * STOP_EACH_MS - self._stop_phase
            begin = begin + (room_ms * self._units.chance_of("stop", self._all, number)).astype(np.int64)
            length_h = least_h - more_h * exact.log(1.0 - self._units.chance_of("length", self._all, number))
            end = begin + (np.minimum(length_h, LONGEST_STOP_H) * hour_ms).astype(np.int64)
            self._stop = number, begin, end, end + int(WITHOUT_COAL_H * hour_ms)
        _, begin, end, coal = self._stop
        return (
            np.where((t_ms >= begin) & (t_ms < end), 0.0, 1.0),
            np.where((t_ms >= begin) & (t_ms < coal), 0.0, 1.0),
        )

    def _blown(self, on: Values) -> Values:
        """The blast, of its full volume: taken off within minutes, brought back within hours."""
        if self._blast is None:
            self._blast = on
        share = np.where(on > self._blast, self._rise, self._fall)
        self._blast = self._blast + share * (on - self._blast)
        return self._blast

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        hanging, slip, channel = faults["hanging"], faults["slip"], faults["channelling"]
        chill, water = faults["hearth_chill"], faults["water_leak"]
        noise = self._units.normal
        blast_on, coal_on = self._stops(t_ms)
        blown = self._blown(blast_on)
        injects = coal_on * self._injects.step(coal_on)  # cut at once, brought back slowly
        # A: against a hanging burden the blower gives up to 10 % less.
        volume = (
            controls.value("blast_volume", self._volume * (1.0 + 0.045 * self._campaign.step(k)))
            * (1.0 + 0.015 * self._wind.step(k))
            * (1.0 - 0.1 * hanging)
        )
        volume = np.minimum(volume, BLOWER_LIMIT) * blown
        relative = volume / self._volume
        burden = self._burden.step(k)
        # A: pressure drop of a packed bed grows with about the 1.8th power of flow, and with what blocks it.
        # A: a hanging burden blocks a third as much again, a channel opens an eighth.
        blocked = (1.0 + 0.03 * burden) * (1.0 + 0.35 * hanging) * (1.0 - 0.12 * channel)
        drop_kpa = self._resistance_kpa * exact.power(np.maximum(relative, 1e-3), 1.8) * blocked
        # A: the top's valve lets pressure follow half of the volume, and is adjusted as the burden changes.
        followed = (1.0 + 0.5 * (relative - 1.0) + 0.04 * self._top_valve.step(k)) * (0.1 + 0.9 * blown)
        top_kpa = self._top_kpa * followed * (1.0 + 0.002 * noise("top_noise", k)) + 15.0 * slip
        oxygen = blown * (controls.value("oxygen_enrichment", self._oxygen) + 0.3 * self._enrich.step(k))

        # > 0: gas is used well; one hourly and one daily component.
        gas = 0.6 * self._gas.step(k) + 0.8 * self._day_gas.step(k)
        eta = self._eta + 0.015 * gas - 0.002 * burden - 0.04 * channel  # A: gas in a channel reduces nothing
        need = 0.8 * self._control.step(k) - 0.6 * gas  # gas used badly is paid for in fuel
        fuel_kg = self._fuel + 5.0 * need
        coal_kg = injects * (self._coal + 5.0 * self._inject.step(k))
        coke_kg = fuel_kg - coal_kg
        carbon = carbon_kg(coke_kg, coal_kg)
        oxygen_share = 0.21 + oxygen / 100.0
        water_kg = HUMIDITY_KG + STEAM_KG * (1.0 - injects) + LEAK_KG * water
        of_fuel = self._coal_hydrogen * (1.0 + 0.13 * self._moisture.step(k))  # A: coal and humidity
        hydrogen = of_fuel * hydrogen_nm3(coke_kg, coal_kg, water_kg)
        carbon_gas, hydrogen_gas, _ = top_gas_percent(carbon, oxygen_share, hydrogen)
        # With the blast off, nitrogen takes the place of gas; the burden gives off a little (A).
        gas_left = self._purged.step(np.clip(4.0 * blown, 0.02, 1.0))
        carbon_gas = carbon_gas * gas_left
        smelting = volume * 1440.0 / blast_nm3_per_t(carbon, oxygen_share)  # t/(m3 d)
        if self._output.value is None:  # what was made before the run was made with the blast on
            self._output.step(self._volume * 1440.0 / blast_nm3_per_t(carbon, oxygen_share))
        output = self._output.step(smelting)
        metal_t_h = smelting * self.volume_m3 / 24.0
        blower = blower_kw(volume * self.volume_m3, top_kpa + drop_kpa)
        co2_kg_h = metal_t_h * (carbon - HOT_METAL_CARBON_KG) * CO2_PER_CARBON + GRID_KG_PER_KWH * blower

        # A: in the units of the hearth's latent, 7 K each. Raw burden that slipped is felt for hours, though
        # the slip itself takes minutes.
        idle = 1.0 - blown
        cold = 5.0 * chill + 2.0 * water + 30.0 * slip + 1.0 * channel + 2.0 * idle
        hearth = self._hearth.step(0.7 * need + 0.7 * self._quality.step(k) - cold)
        metal_c = self._metal_c + 7.0 * hearth
        hot_top = 60.0 * hanging + 90.0 * slip + 25.0 * channel - 90.0 * idle  # A
        top_c = np.maximum(
            self._top_c
            - 12.0 * gas
            + 30.0 * self._heat.step(k)
            + 8.0 * self._throat.step(k)
            + 1.5 * noise("top_c_noise", k)
            + hot_top,
            35.0,
        )
        # A: 9 cm/min at usual output.
        descent = 3.6 * smelting * (1.0 + 0.15 * noise("descent", k)) * (1.0 - hanging) * (1.0 + 1.3 * slip)
        stave_c = (
            self._stave_c - 1.5 * gas - 4.0 * idle + 3.0 * self._wall.step(k) + 0.3 * noise("stave_noise", k)
        )
        return {
            "hot_blast_temp": self._blast_c + 9.0 * self._stove.step(k),
            "blast_volume": volume,
            "blast_pressure": top_kpa + drop_kpa,
            "top_pressure": top_kpa,
            # Of little blast and no burden's resistance the ratio means nothing.
            "permeability": volume / np.maximum(drop_kpa, 0.3 * self._resistance_kpa),
            "oxygen_enrichment": oxygen,
            "coke_rate": coke_kg,
            "pci_rate": coal_kg,
            "fuel_rate": fuel_kg,
            "top_gas_CO": (1.0 - eta) * carbon_gas,
            "top_gas_CO2": eta * carbon_gas,
            "eta_CO": eta,
            "top_gas_temp": top_c,
            "hot_metal_temp": metal_c + 1.0 * noise("thermocouple", k),
            # C: .11 in all, .06 from cast to cast; what the hearth's heat does to it ends at 0.25 when cold.
            "hot_metal_Si": np.maximum(
                0.45 + 0.12 * hearth / (1.0 + 0.3 * np.maximum(-hearth, 0.0)) + 0.06 * noise("analysis", k),
                0.05,
            ),
            "productivity": output,
            "stave_temp": stave_c,
            "top_gas_H2": hydrogen_gas * gas_left,
            "burden_descent": descent,
            # A: gas wanders between the uptakes; a channel adds 60 K.
            "top_temp_spread": self._spread_c * exact.sway(0.3 * self._uptakes.step(k)) + 60.0 * channel,
            # A: two large flow meters, of which a leak's water is the difference.
            "cooling_flow_diff": 0.5
            + 0.8 * self._flow_meter.step(k)
            + 0.001 * LEAK_KG * water * np.maximum(metal_t_h, 40.0),
            **self._meters.step(k, blower, co2_kg_h),
        }
