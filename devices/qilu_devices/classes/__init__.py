"""The simulated equipment classes, by their name in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qilu_contract.catalogue.classes import OWN

from qilu_devices.classes.blast_furnace import BlastFurnaces
from qilu_devices.classes.boiler import Boilers
from qilu_devices.classes.cnc import CncMachines
from qilu_devices.classes.compressor import Compressors
from qilu_devices.classes.heat_treatment import Ovens, Pasteurisers
from qilu_devices.classes.loom import Looms
from qilu_devices.classes.motor import Motors
from qilu_devices.classes.own import OwnUnits
from qilu_devices.classes.pump import Pumps
from qilu_devices.classes.reactor import Reactors
from qilu_devices.classes.robot import Robots
from qilu_devices.classes.wind_turbine import WindTurbines
from qilu_devices.kernel import Kernel
from qilu_devices.noise import Streams

KERNELS: dict[str, Callable[[Streams, Streams, float], Kernel]] = {
    "blast_furnace": BlastFurnaces,
    "wind_turbine": WindTurbines,
    "motor": Motors,
    "boiler": Boilers,
    "compressor": Compressors,
    "cnc": CncMachines,
    "robot": Robots,
    "reactor": Reactors,
    "pump": Pumps,
    "loom": Looms,
    "pasteuriser": Pasteurisers,
    "oven": Ovens,
    **{name: partial(OwnUnits, own) for name, own in OWN.items()},
}
"""Factories of kernels, by class."""
