"""Blast furnaces: a carbon balance for top gas and output, η_CO = CO2/(CO + CO2), permeability = V/ΔP, a
hearth that lags the burden.

Marks of constants: S source found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

from qilu_devices.kernel import FirstOrder, Times
from qilu_devices.noise import Autoregression, Streams, Values

COKE_CARBON, COAL_CARBON = 0.87, 0.78  # A: mass shares of carbon in coke and injected coal
HOT_METAL_CARBON_KG = 45.0  # N: 4.5 % of carbon in hot metal
DIRECT_REDUCTION_KG = 110.0  # A: carbon per tonne that reduces oxide without meeting the blast
NM3_PER_KMOL = 22.414
HYDROGEN_NM3 = 50.0  # A: top gas hydrogen per tonne, from coal and moisture
MEAN_FUEL_KG, MEAN_ETA = 519.0, 0.47  # S: 2009 average; A
HEARTH_TAU_S = 4.0 * 3600.0  # A: hot metal lags the burden by 2-6 h
OUTPUT_TAU_S = 12.0 * 3600.0  # A: productivity is a figure of the day, not of the minute


def carbon_kg(coke_kg: Values, coal_kg: Values) -> Values:
    """Carbon of the fuel per tonne of hot metal."""
    return coke_kg * COKE_CARBON + coal_kg * COAL_CARBON


def blast_nm3_per_t(carbon: Values, oxygen_share: Values) -> Values:
    """Blast needed for a tonne of hot metal: carbon at the tuyeres burns to CO with the blast's oxygen."""
    burnt = carbon - HOT_METAL_CARBON_KG - DIRECT_REDUCTION_KG
    return burnt / 12.011 * NM3_PER_KMOL / 2.0 / oxygen_share


def carbon_gas_percent(carbon: Values, oxygen_share: Values) -> Values:
    """CO + CO2 in vol% of dry top gas: all carbon that does not leave with the metal, over itself, nitrogen
    and hydrogen."""
    gas = (carbon - HOT_METAL_CARBON_KG) / 12.011 * NM3_PER_KMOL
    nitrogen = blast_nm3_per_t(carbon, oxygen_share) * (1.0 - oxygen_share)
    return 100.0 * gas / (gas + nitrogen + HYDROGEN_NM3)


class BlastFurnaces:
    """The kernel of class `blast_furnace`; see `qilu_devices.kernel.Kernel`."""

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
        hour = 3600.0
        # A: how long blast, burden, gas flow and hearth remember.
        self._stove = Autoregression(units, "stove", interval_s, 1.0 * hour)
        self._wind = Autoregression(units, "wind", interval_s, 2.0 * hour)
        self._burden = Autoregression(units, "burden", interval_s, 3.0 * hour)
        self._enrich = Autoregression(units, "enrich", interval_s, 4.0 * hour)
        self._gas = Autoregression(units, "gas", interval_s, 3.0 * hour)
        self._control = Autoregression(units, "control", interval_s, 12.0 * hour)
        self._inject = Autoregression(units, "inject", interval_s, 8.0 * hour)
        self._quality = Autoregression(units, "quality", interval_s, 6.0 * hour)
        self._throat = Autoregression(units, "throat", interval_s, 600.0)
        self._wall = Autoregression(units, "wall", interval_s, 1.0 * hour)
        self._hearth = FirstOrder(interval_s, HEARTH_TAU_S)
        self._output = FirstOrder(interval_s, OUTPUT_TAU_S)

    def step(self, k: int, t_ms: Times) -> dict[str, Values]:
        noise = self._units.normal
        volume = self._volume * (1.0 + 0.012 * self._wind.step(k))
        burden = self._burden.step(k)
        # A: pressure drop of a packed bed grows with about the 1.8th power of flow, and with what blocks it.
        drop_kpa = self._resistance_kpa * (volume / self._volume) ** 1.8 * (1.0 + 0.03 * burden)
        top_kpa = self._top_kpa * (1.0 + 0.008 * noise("top_noise", k))
        oxygen = self._oxygen + 0.3 * self._enrich.step(k)

        gas = self._gas.step(k)  # > 0: gas is used well
        eta = self._eta + 0.006 * gas - 0.002 * burden
        need = 0.8 * self._control.step(k) - 0.6 * gas  # gas used badly is paid for in fuel
        fuel_kg = self._fuel + 5.0 * need
        coal_kg = self._coal + 5.0 * self._inject.step(k)
        coke_kg = fuel_kg - coal_kg
        carbon = carbon_kg(coke_kg, coal_kg)
        oxygen_share = 0.21 + oxygen / 100.0
        carbon_gas = carbon_gas_percent(carbon, oxygen_share)
        output = self._output.step(volume * 1440.0 / blast_nm3_per_t(carbon, oxygen_share))

        hearth = self._hearth.step(0.7 * need + 0.7 * self._quality.step(k))
        metal_c = self._metal_c + 7.0 * hearth
        top_c = self._top_c - 8.0 * gas + 6.0 * self._throat.step(k) + 1.5 * noise("top_c_noise", k)
        stave_c = self._stave_c - 1.5 * gas + 3.0 * self._wall.step(k) + 0.3 * noise("stave_noise", k)
        return {
            "hot_blast_temp": self._blast_c + 9.0 * self._stove.step(k),
            "blast_volume": volume,
            "blast_pressure": top_kpa + drop_kpa,
            "top_pressure": top_kpa,
            "permeability": volume / drop_kpa,
            "oxygen_enrichment": oxygen,
            "coke_rate": coke_kg,
            "pci_rate": coal_kg,
            "fuel_rate": fuel_kg,
            "top_gas_CO": (1.0 - eta) * carbon_gas,
            "top_gas_CO2": eta * carbon_gas,
            "eta_CO": eta,
            "top_gas_temp": top_c,
            "hot_metal_temp": metal_c + 1.0 * noise("thermocouple", k),
            # A: 0.03 % for each 10 K about 1500 °C, so that 0.25 is cold and 0.65 hot at the catalogue's
            # bounds.
            "hot_metal_Si": 0.45 + 0.003 * (metal_c - 1500.0) + 0.012 * noise("analysis", k),
            "productivity": output,
            "stave_temp": stave_c,
        }
