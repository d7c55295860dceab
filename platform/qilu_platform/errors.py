"""Domain errors: reasons for refusing a request, each with one sentence for the caller. The API maps them to
HTTP statuses (`api/problems.py`)."""

from __future__ import annotations

from qilu_contract.errors import QiluError


class Refused(QiluError):
    """The request is invalid."""


class NotFound(Refused):
    """There is no such thing, or none that the caller may see."""


class Conflict(Refused):
    """The request conflicts with existing data."""


class Invalid(Refused):
    """The request itself is wrong, whatever is there."""


class Unavailable(Refused):
    """Not now; another replica may, or this one soon."""
