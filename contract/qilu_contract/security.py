"""Security events: the kinds that the platform counts and the dashboards show (measurement `security`)."""

from __future__ import annotations

from typing import Literal, get_args

SecurityKind = Literal[
    "unknown_key",
    "revoked_key",
    "forbidden",
    "rate_limit",
    "wrong_topic",
    "sequence",
    "unusual_value",
    "dead_letter_burst",
    "refused_command",
    "foreign_answer",
    "revoked_certificate",
    "expired_certificate",
    "refused_certificate",
]
SECURITY_KINDS: tuple[SecurityKind, ...] = get_args(SecurityKind)
UNKNOWN_CITY = "unknown"
"""Tag value of events without a city of the province, such as an unknown key."""
