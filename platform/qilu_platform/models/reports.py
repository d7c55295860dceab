"""Models of other answers: counts, readings, commands, keys, files, the catalogue. As in `answers.py`, for
the API description only."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from qilu_platform.models.answers import Page
from qilu_platform.models.fields import Kind, Level, Role

Value = bool | int | float
"""Of a signal."""


def _example(**value: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


# -- the programme


class TargetOut(BaseModel):
    name: str
    target: int
    onboarded: int = Field(description="Ever; never decreases.")
    current: int = Field(description="Without those that were retired or have ended.")
    reached: bool


class RegisteredOut(BaseModel):
    enterprises: int
    units: int


class StandOut(BaseModel):
    onboarded: int
    current: int


class VouchersOut(BaseModel):
    """In yuan."""

    granted: int
    redeemed: int
    clawed_back: int


class ClassCountsOut(BaseModel):
    units_registered: int
    units_on_cloud: int


class CityCountsOut(ClassCountsOut):
    enterprises_registered: int
    enterprises_on_cloud: int


class ClaimOut(BaseModel):
    month: str = Field(description="Such as 2020-10.")
    reported: int
    more: bool = Field(description="The report says “more than”.")
    proven: int = Field(description="This platform's count now, proven by telemetry.")
    who: str
    source: str
    name: str = Field(description="The target that it is about.")


class ProgrammeOut(BaseModel):
    as_of_ms: int
    targets: list[TargetOut]
    claims: list[ClaimOut] = Field(
        description="Counts that others reported, beside the same counts proven here."
    )
    registered: RegisteredOut
    active: int = Field(description="Units with a reading in the last 24 hours.")
    contracts: dict[Kind, StandOut]
    vouchers: dict[Level, VouchersOut] = Field(description="By who pays.")
    by_city: dict[str, CityCountsOut] = Field(description="By the city's code.")
    by_class: dict[str, ClassCountsOut]


class PlaceCountsOut(BaseModel):
    enterprises_registered: int
    enterprises_on_cloud: int
    units_registered: int
    units_on_cloud: int
    units_on_cloud_current: int


class PlaceOut(BaseModel):
    code: str
    level: Literal["province", "city", "county"]
    counts: PlaceCountsOut
    within: dict[str, PlaceCountsOut] = Field(description="The cities or counties in it, by code.")


class PlaceHistoryOut(BaseModel):
    code: str
    columns: list[str] = Field(description="`ts_ms`, then counts.")
    rows: list[list[Value | None]]


class EnergyOut(BaseModel):
    energy_kWh: float
    co2_kg: float


class PlaceEnergyOut(BaseModel):
    code: str
    columns: list[str] = Field(description="`ts_ms`, then sums of the hour.")
    rows: list[list[float]]
    by_class: dict[str, EnergyOut]


class PipelineOut(BaseModel):
    gateways: list[dict[str, Value | str | None]] = Field(
        description="Each gateway or shard with its newest figures; `held_by` serves a shared shard."
    )
    dead_letters: dict[str, int] = Field(description="Readings by reason, since the gateways started.")
    columns: list[str] = Field(description="`ts_ms`, then rates and lag.")
    rows: list[list[Value | None]]


class AssumptionOut(BaseModel):
    name: str
    value: str
    unit: str
    mark: str
    source: str


class AssumptionsOut(BaseModel):
    items: list[AssumptionOut]


# -- a unit's readings, commands, problems and history


class LatestOut(BaseModel):
    model_config = _example(
        unit="370202-motor-0000123", ts_ms=1767225600000, values={"power_in": 11.2, "speed": 1470.0}
    )

    unit: str
    ts_ms: int
    values: dict[str, Value] = Field(description="By signal.")


class ReadingsOut(BaseModel):
    model_config = _example(
        unit="370202-motor-0000123",
        columns=["ts_ms", "power_in", "speed"],
        rows=[[1767225600000, 11.2, 1470.0], [1767225601000, 11.3, None]],
    )

    unit: str
    columns: list[str] = Field(description="`ts_ms`, then the signals.")
    rows: list[list[Value | None]] = Field(description="In the order of time.")


class CommandOut(BaseModel):
    model_config = _example(
        id="cmd-0d1f2a3b4c5d6e7f",
        unit="370202-motor-0000123",
        at_ms=1767225600000,
        key="key-0d1f2a3b4c5d",
        command={"command": "set_point", "name": "load", "value": 500.0},
        state="refused",
        reason="Set point load of class motor takes 15 to 108 %, not 500.",
        holds_from_ms=None,
    )

    id: str
    unit: str
    at_ms: int
    key: str = Field(description="The id of the key that sent it.")
    command: dict[str, str | float] = Field(description="As it was asked for.")
    state: Literal["sent", "accepted", "refused"]
    reason: str | None = Field(description="Of a refusal.")
    holds_from_ms: int | None = Field(description="By the unit's clock.")


class UnitCommandsOut(BaseModel):
    unit: str
    items: list[CommandOut]


class DeviceProblemOut(BaseModel):
    model_config = _example(
        unit="my-motor",
        enterprise="my-works",
        reason="bad_timestamp",
        count=12,
        first_ms=1767225600000,
        last_ms=1767225611000,
        excerpt='ts 1767225600 looks like seconds: {"ts": 1767225600, "power_in": 11.2}',
    )

    unit: str
    enterprise: str
    reason: str
    count: int = Field(description="How often it was seen.")
    first_ms: int
    last_ms: int
    excerpt: str = Field(description="The error, and the beginning of the latest message.")


class DeviceProblemsOut(BaseModel):
    items: list[DeviceProblemOut]


class EventOut(BaseModel):
    model_config = _example(event="suspended", at_ms=1767225600000, key="key-0d1f2a3b4c5d")

    event: str
    at_ms: int
    key: str | None = Field(description="The id of the key that did it.")


class HistoryOut(BaseModel):
    unit: str
    items: list[EventOut]


class EndingsOut(BaseModel):
    model_config = _example(ended=1, already=0, unknown=[])

    ended: int
    already: int
    unknown: list[str]


# -- keys and the audit log


class NewKeyOut(BaseModel):
    model_config = _example(id="key-0d1f2a3b4c5d", key="qilu_…")

    id: str
    key: str


class KeyOut(BaseModel):
    id: str
    name: str
    role: Role
    enterprise: str | None
    created_ms: int
    revoked_ms: int | None


class KeysOut(BaseModel):
    items: list[KeyOut]


class WhoamiOut(BaseModel):
    model_config = _example(key="key-0d1f2a3b4c5d", name="line 3", role="enterprise", enterprise="my-works")

    key: str = Field(description="The key's id.")
    name: str
    role: Role
    enterprise: str | None = Field(description="The one that the key is confined to.")


class AuditOut(BaseModel):
    seq: int
    at_ms: int
    key: str = Field(description="The id of the key that did it.")
    action: str
    subject: str = Field(description="`units/<id>`, or `units` for many at once.")
    detail: dict[str, Any] | None


class AuditPage(Page[AuditOut]):
    pass


# -- for gateways


class BarredOut(BaseModel):
    model_config = _example(epoch="9f2c4e5a01b7d368", next=17, units=["my-motor"], enterprises=[])

    epoch: str
    next: int
    units: list[str]
    enterprises: list[str]


class FirstReadingsOut(BaseModel):
    model_config = _example(counted=1, already=0, unknown=[])

    counted: int
    already: int
    unknown: list[str]


class ActivityOut(BaseModel):
    model_config = _example(updated=1)

    updated: int


class DeathsOut(BaseModel):
    model_config = _example(stale=1)

    stale: int


class ShardsOut(BaseModel):
    model_config = _example(shards=[1, 2], lease_s=15.0, taken=[], inherited=[2])

    shards: list[int] = Field(description="To serve; the gateway hands over all others that it holds.")
    lease_s: float = Field(description="How long they are reserved for it, unless it asks again.")
    taken: list[int] = Field(description="Wanted shards that another gateway has.")
    inherited: list[int] = Field(description="Those of `shards` that another gateway served last.")


# -- files


class ImportOut(BaseModel):
    model_config = _example(
        id="import-0d1f2a3b4c5d6e7f",
        book="units",
        format="csv",
        state="done",
        offset=48123,
        lines=1001,
        created=990,
        existing=8,
        bad=2,
        key="key-0d1f2a3b4c5d",
        begun_ms=1767225600000,
        changed_ms=1767225600900,
        errors="/v1/imports/import-0d1f2a3b4c5d6e7f/errors",
    )

    id: str
    book: Literal["enterprises", "units"]
    format: Literal["csv", "ndjson"] | None = Field(description="Null until the file begins.")
    state: Literal["open", "done", "refused"]
    offset: int = Field(description="Bytes of the file, before gzip, that are done.")
    lines: int
    created: int
    existing: int
    bad: int
    key: str
    begun_ms: int
    changed_ms: int
    errors: str = Field(description="URL of the bad lines.")


class ImportsOut(BaseModel):
    items: list[ImportOut]
