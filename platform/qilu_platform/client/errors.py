"""Why a call failed."""

from __future__ import annotations

from qilu_contract.errors import ConfigError, QiluError


class PlatformError(QiluError):
    """The platform said no. `status` is HTTP's; 0 where there was no answer."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class PlatformAway(PlatformError):
    """It does not answer now, or is busy; it may soon."""


class KeyRefused(PlatformError, ConfigError):
    """The key is not known, or its role does not allow what was asked."""
