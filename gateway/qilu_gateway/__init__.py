"""The gateway's public interface, for programs that embed it (docs/python.md).

The names in `__all__` are stable; everything else may change in any release. A name is loaded at its first
use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qilu_common.interpreter import import_lean

if TYPE_CHECKING:
    from qilu_gateway.service import GatewayService
    from qilu_gateway.settings import Settings

__all__ = ["GatewayService", "Settings"]

import_lean("structlog", "httpx2")


def __getattr__(name: str) -> Any:
    if name == "GatewayService":
        from qilu_gateway.service import GatewayService

        return GatewayService
    if name == "Settings":
        from qilu_gateway.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
