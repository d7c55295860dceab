"""Doors: industrial protocols by which clients read and command simulated equipment, without a broker."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from qilu_contract.errors import ConfigError

EXTRAS = {"opcua": "OPC UA", "modbus": "Modbus"}
"""Protocols by their extra, which is also the name of their folder."""


def load(extra: str, module: str) -> ModuleType:
    """Import a module of a door. Raises ConfigError when the door's extra is not installed."""
    try:
        return import_module(f"{__name__}.{extra}.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("qilu"):
            raise
        raise ConfigError(
            f"{EXTRAS[extra]} needs {error.name}, which is not installed: "
            f"pip install 'clouds-in-qilu[{extra}]'."
        ) from error
