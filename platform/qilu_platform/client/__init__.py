"""A client of the platform's API, for Python programs: blocking, typed, httpx2 and nothing else of ours.

    with Platform("http://127.0.0.1:8000", key) as platform:
        works = platform.create_enterprise("My works", county="370202", industry="C34", id="my-works")
        motor = platform.create_unit("motor", works.id, id="my-motor")

A refusal of the platform is raised as PlatformError with the platform's sentence; KeyRefused and PlatformAway
are kinds of it. Times are milliseconds since 1970, UTC.
"""

from __future__ import annotations

from qilu_common.platform_http import KeyRefused, PlatformAway, PlatformError

from qilu_platform.client.answers import (
    Certificate,
    Command,
    Contract,
    County,
    DevicePassword,
    DeviceProblem,
    Enterprise,
    EquipmentClass,
    Import,
    Industry,
    IssuedCertificate,
    Key,
    Latest,
    NewKey,
    Programme,
    Provider,
    Replay,
    SecurityEvent,
    SecurityEvents,
    Signal,
    Target,
    Unit,
    Whoami,
)
from qilu_platform.client.calls import Platform
from qilu_platform.client.files import content_type

__all__ = [
    "Certificate",
    "Command",
    "Contract",
    "County",
    "DevicePassword",
    "DeviceProblem",
    "Enterprise",
    "EquipmentClass",
    "Import",
    "Industry",
    "IssuedCertificate",
    "Key",
    "KeyRefused",
    "Latest",
    "NewKey",
    "Platform",
    "PlatformAway",
    "PlatformError",
    "Programme",
    "Provider",
    "Replay",
    "SecurityEvent",
    "SecurityEvents",
    "Signal",
    "Target",
    "Unit",
    "Whoami",
    "content_type",
]
