"""The simulated equipment classes, by their name in the catalogue."""

from __future__ import annotations

from qilu_devices.classes.blast_furnace import BlastFurnaces
from qilu_devices.classes.boiler import Boilers
from qilu_devices.classes.motor import Motors
from qilu_devices.classes.wind_turbine import WindTurbines
from qilu_devices.kernel import Kernel

KERNELS: dict[str, type[Kernel]] = {
    "blast_furnace": BlastFurnaces,
    "wind_turbine": WindTurbines,
    "motor": Motors,
    "boiler": Boilers,
}
