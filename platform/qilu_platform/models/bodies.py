"""Models of request bodies, validated at the edge. All code inside uses plain rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from qilu_platform.models.fields import (
    MAX_BATCH,
    MAX_COLUMNS,
    CityCode,
    ClassName,
    CountyCode,
    Days,
    Id,
    IndustryCode,
    Kind,
    Level,
    Name,
    NewId,
    PlaceCode,
    Recognised,
    Role,
    Text,
    TsMs,
    Uscc,
    Yuan,
    clean,
)


class Body(BaseModel):
    """Base of bodies that become a row."""

    model_config = ConfigDict(extra="forbid", use_enum_values=True)

    def row(self) -> dict[str, Any]:
        """The body as a row, by the names of the registry's columns."""
        return self.model_dump(by_alias=True)


def _example(**value: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class EnterpriseIn(Body):
    model_config = _example(
        id="370202-e00007", name="Qingdao Iron and Steel", county="370202", industry="C31"
    )

    id: NewId | None = Field(None, description="Made by the platform when left out; never reused.")
    name: Name
    county: CountyCode = Field(description="Code of the county (GB/T 2260); the city follows from it.")
    industry: IndustryCode = Field(
        description="Division of GB/T 4754-2017 (C31), or outside industry and software a section (F)."
    )
    uscc: Uscc | None = Field(
        None,
        description="Unified social credit code (GB 32100-2015), 18 characters; nobody shares one.",
    )


class UnitIn(Body):
    model_config = _example(**{"class": "motor", "enterprise": "370202-e00007", "name": "Pump motor 3"})

    id: NewId | None = Field(None, description="Made by the platform when left out; never reused.")
    class_: ClassName = Field(alias="class")
    enterprise: Id = Field(description="The enterprise that owns it; gives county, city and industry.")
    name: Name | None = None


class ProviderIn(Body):
    model_config = _example(name="Haier COSMOPlat")

    id: NewId | None = None
    name: Name


class ContractIn(Body):
    model_config = _example(enterprise="370202-e00007", provider="provider-1", kind="equipment")

    id: NewId | None = None
    enterprise: Id
    provider: Id
    kind: Kind


class CentreIn(Body):
    model_config = _example(name="Qingdao experience centre", city="370200", park="Laoshan")

    id: NewId | None = None
    name: Name
    city: CityCode
    park: Name | None = None


class RecognitionIn(Body):
    model_config = _example(kind="supplier", place="370202", subject="provider-1")

    id: NewId | None = None
    kind: Recognised
    place: PlaceCode = Field(description="Code of a county, a city or the province (GB/T 2260).")
    subject: Id | None = Field(
        None,
        description="Whom it is about: a platform's id (its tiers, leading, an application's publisher), a "
        "registered provider (supplier) or enterprise (pilot); bases and clusters have none.",
    )

    @model_validator(mode="after")
    def _check_subject(self) -> RecognitionIn:
        alone = self.kind in (Recognised.BASE, Recognised.CLUSTER)
        if alone == (self.subject is not None):
            raise ValueError(f"`subject` is {'not given' if alone else 'needed'} with the kind {self.kind}")
        return self


class DisbursementIn(Body):
    model_config = _example(level="county", granted=120_000, redeemed=90_000, clawed_back=3_000)

    id: NewId | None = None
    level: Level = Field(description="Whose money it is.")
    granted: Yuan = Field(description="Promised by vouchers, in yuan.")
    redeemed: Yuan = Field(description="Paid for vouchers.")
    clawed_back: Yuan = Field(description="Taken back of what was paid.")


class NameIn(Body):
    model_config = _example(name="Pump motor 3, rewound")

    name: Name


class EndingsIn(Body):
    model_config = _example(contracts=["370202-e00007-equipment"])

    contracts: list[Annotated[Text, Field(max_length=256)]] = Field(max_length=MAX_BATCH)


class KeyIn(Body):
    model_config = _example(name="line 3 gateway", role="ingest")

    name: Name
    role: Role
    enterprise: Id | None = Field(None, description="For the role `enterprise`: the one whose data it sees.")

    @model_validator(mode="after")
    def _check_enterprise(self) -> KeyIn:
        if (self.role == Role.ENTERPRISE) != (self.enterprise is not None):
            raise ValueError("`enterprise` is given with the role `enterprise`, and only then")
        return self


class RotationIn(Body):
    model_config = _example(grace_s=3600)

    grace_s: int = Field(0, ge=0, le=30 * 86_400, description="Seconds that the old key stays valid.")


class CertificateIn(Body):
    model_config = _example(csr="-----BEGIN CERTIFICATE REQUEST-----\n…", days=365)

    csr: str = Field(
        max_length=16_384,
        description="In PEM; its key is signed, its names are replaced by the enterprise's id.",
    )
    days: Days = 365


class BundleIn(Body):
    model_config = _example(days=365)

    days: Days = 365


class AdmissionIn(Body):
    model_config = _example(units=["370202-motor-0000123"])

    # Not checked one by one: what is no id is simply not found.
    units: list[Annotated[Text, Field(max_length=256)]] = Field(max_length=MAX_BATCH)


class AdmissionColumnsIn(AdmissionIn):
    units: list[Annotated[Text, Field(max_length=256)]] = Field(max_length=MAX_COLUMNS)


class ReadingIn(Body):
    unit: Annotated[Text, Field(max_length=256)]
    ts_ms: TsMs


class ReadingsIn(Body):
    model_config = _example(readings=[{"unit": "370202-motor-0000123", "ts_ms": 1767225600000}])

    readings: list[ReadingIn] = Field(max_length=MAX_BATCH)


class ReadingColumnsIn(Body):
    """First or recent readings by column, with as many times as units."""

    model_config = _example(units=["370202-motor-0000123"], ts_ms=[1767225600000])

    units: list[Annotated[Text, Field(max_length=256)]] = Field(max_length=MAX_COLUMNS)
    ts_ms: list[TsMs] = Field(max_length=MAX_COLUMNS)

    @model_validator(mode="after")
    def _check_lengths(self) -> ReadingColumnsIn:
        if len(self.units) != len(self.ts_ms):
            raise ValueError(f"{len(self.units)} units and {len(self.ts_ms)} times: each unit has one")
        return self


class ProblemIn(BaseModel):
    unit: Id
    enterprise: Id
    county: Annotated[str, Field(pattern="^[0-9]{6}$")]
    reason: Annotated[str, Field(pattern="^[a-z0-9_]{1,32}$")]
    count: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True, description="Since the last report.")]
    last_ms: TsMs
    excerpt: Annotated[Text, Field(max_length=1_000)] = Field(
        description="The error, and the beginning of the message."
    )


class ProblemsIn(Body):
    model_config = _example(
        problems=[
            {
                "unit": "my-motor",
                "enterprise": "my-works",
                "county": "370202",
                "reason": "bad_timestamp",
                "count": 12,
                "last_ms": 1767225600000,
                "excerpt": "ts 1767225600 looks like seconds",
            }
        ]
    )

    problems: list[ProblemIn] = Field(max_length=MAX_BATCH)


class CommandIn(BaseModel):
    """A command to a unit. The unit decides whether it accepts it, and within which range."""

    model_config = ConfigDict(extra="forbid")

    command: Literal["set_point", "start", "stop", "reset", "fault"]
    name: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(clean)] | None = None
    """The set point's or the fault's."""
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    """The set point, or the fault's severity (above 0, at most 1; 1 without it)."""
    duration_s: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    """How long a fault lasts; without it as long as such faults usually do."""
    onset_s: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    """How long a fault takes to develop; 0 for at once, without it as long as such faults usually do."""

    @model_validator(mode="after")
    def _whole(self) -> CommandIn:
        if self.command == "set_point" and (self.name is None or self.value is None):
            raise ValueError("a set point takes a name and a value")
        if self.command == "fault" and self.name is None:
            raise ValueError("a fault takes a name")
        if self.command in ("start", "stop", "reset") and (self.name, self.value) != (None, None):
            raise ValueError(f"{self.command} takes neither name nor value")
        if self.command != "fault" and (self.duration_s, self.onset_s) != (None, None):
            raise ValueError("only a fault takes duration_s and onset_s")
        return self


class ShardsIn(BaseModel):
    """`wanted`: the shards among which a gateway may have its share, or with `fixed` must have all."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"pool": "qilu/4", "gateway": "gw-1f2e", "wanted": [1, 2, 3, 4], "held": [1, 2]}]
        },
    )

    pool: str = Field(pattern=r"^[a-z0-9-]{1,32}/[0-9]{1,3}$", description="Host id and number of shards.")
    gateway: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$", description="Its name, the same after a restart.")
    wanted: list[Annotated[int, Field(ge=1, le=999)]] = Field(max_length=999)
    held: list[Annotated[int, Field(ge=1, le=999)]] = Field(
        default=[], max_length=999, description="Those that it serves or still hands over."
    )
    fixed: bool = False
