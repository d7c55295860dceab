"""The gateway. For those who embed it in Python: docs/python.md.

The names in `__all__` are the public interface and stay; everything else may change in any release. A name is
loaded when it is used.
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
