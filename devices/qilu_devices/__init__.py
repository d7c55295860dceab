"""The public interface of the simulated equipment, for programs that embed it (docs/python.md).

    import qilu_devices

    day = qilu_devices.simulate("motor", start="2022-06-01T00:00:00+08:00", duration="1d")

The names in `__all__` are stable; everything else may change in any release. Importing this package is fast,
because a name is loaded at its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qilu_devices.embedding import simulate
    from qilu_devices.fleet import Unit
    from qilu_devices.scenario import Scenario, load_scenario
    from qilu_devices.simulation import Moment, Sample, Simulation, fleet_of

__all__ = [
    "Moment",
    "Sample",
    "Scenario",
    "Simulation",
    "Unit",
    "fleet_of",
    "load_scenario",
    "simulate",
]

_HOMES = {
    "embedding": ("simulate",),
    "fleet": ("Unit",),
    "scenario": ("Scenario", "load_scenario"),
    "simulation": ("Moment", "Sample", "Simulation", "fleet_of"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
