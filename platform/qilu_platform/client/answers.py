"""Typed answers of the platform."""

from __future__ import annotations

import msgspec


class Enterprise(msgspec.Struct, frozen=True):
    id: str
    name: str
    county: str
    city: str
    industry: str
    uscc: str | None
    registered_ms: int
    on_cloud_ms: int | None
    contracts_current: int
    suspended_ms: int | None


class Unit(msgspec.Struct, frozen=True, rename={"class_": "class"}):
    id: str
    identifier: str
    class_: str
    enterprise: str
    name: str | None
    county: str
    city: str
    industry: str
    state: str
    registered_ms: int
    on_cloud_ms: int | None
    active: bool


class Command(msgspec.Struct, frozen=True):
    """`command` as it was asked for; `state` is sent (no answer yet), accepted or refused (for `reason`)."""

    id: str
    unit: str
    at_ms: int
    key: str
    command: dict[str, str | float]
    state: str
    reason: str | None
    holds_from_ms: int | None


class Contract(msgspec.Struct, frozen=True):
    id: str
    enterprise: str
    provider: str
    kind: str
    registered_ms: int
    ended_ms: int | None


class Latest(msgspec.Struct, frozen=True):
    """A unit's latest reading."""

    unit: str
    ts_ms: int
    values: dict[str, float | int | bool]


class DeviceProblem(msgspec.Struct, frozen=True):
    """A problem: messages of a unit that a gateway refused, or took only in part."""

    unit: str
    enterprise: str
    reason: str
    count: int
    first_ms: int
    last_ms: int
    excerpt: str


class SecurityEvent(msgspec.Struct, frozen=True):
    """Events of one kind, enterprise and subject (a unit, a key, a certificate or a client's address)."""

    kind: str
    enterprise: str
    subject: str
    county: str
    count: int
    first_ms: int
    last_ms: int
    detail: str


class SecurityEvents(msgspec.Struct, frozen=True):
    """The latest events, and counts of all."""

    items: list[SecurityEvent]
    by_kind: dict[str, int]
    by_city: dict[str, int]
    by_enterprise: dict[str, int]


class Provider(msgspec.Struct, frozen=True):
    id: str
    name: str
    registered_ms: int


class Signal(msgspec.Struct, frozen=True):
    name: str
    unit: str
    type: str
    low: float
    high: float
    nominal: float
    resolution: float
    interval_s: int


class EquipmentClass(msgspec.Struct, frozen=True):
    name: str
    title: str
    title_zh: str
    stoppable: bool
    signals: list[Signal]


class County(msgspec.Struct, frozen=True):
    code: str
    name: str
    name_zh: str
    kind: str
    city: str


class Industry(msgspec.Struct, frozen=True):
    code: str
    name: str
    name_zh: str
    group: str


class Standing(msgspec.Struct):
    """Progress of a played run: the last complete month, and how many of `months` are done."""

    scenario: str
    scale: float
    month: str
    done: int
    months: int
    state: str


class Replay(msgspec.Struct):
    """`scenarios`: those that can be started here."""

    standing: Standing | None
    scenarios: list[str]


class Whoami(msgspec.Struct, frozen=True):
    """The caller's key: its id, name, role, and the enterprise that it is confined to."""

    key: str
    name: str
    role: str
    enterprise: str | None


class Key(msgspec.Struct, frozen=True):
    id: str
    name: str
    role: str
    enterprise: str | None
    created_ms: int
    revoked_ms: int | None


class NewKey(msgspec.Struct, frozen=True):
    """The key itself; shown this once only."""

    id: str
    key: str


class Certificate(msgspec.Struct, frozen=True):
    """A certificate of an edge node; `id` is its serial number, `state` valid, expired or revoked."""

    id: str
    enterprise: str
    state: str
    issued_ms: int
    ends_ms: int
    revoked_ms: int | None


class IssuedCertificate(Certificate, frozen=True):
    """A new certificate, with its PEM text."""

    certificate: str
    ca: str


class Listener(msgspec.Struct, frozen=True):
    host: str
    port: int


class DevicePassword(msgspec.Struct, frozen=True):
    """A device's log-in at the broker, with its password: shown once."""

    username: str
    password: str
    listener: Listener


class Import(msgspec.Struct, frozen=True):
    """A job of bulk import: `offset` bytes of its file are done."""

    id: str
    book: str
    state: str
    offset: int
    lines: int
    created: int
    existing: int
    bad: int


class Target(msgspec.Struct, frozen=True):
    name: str
    target: int
    onboarded: int
    current: int
    reached: bool


class Programme(msgspec.Struct, frozen=True):
    """The programme's counts; `registered` has enterprises and units."""

    as_of_ms: int
    targets: list[Target]
    registered: dict[str, int]
    active: int

    def onboarded(self, name: str) -> int:
        return next(target.onboarded for target in self.targets if target.name == name)
