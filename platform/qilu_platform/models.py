"""What the API takes, checked at the door. Everything inside works with plain rows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import BRANCHES, CITIES, COUNTIES, PROVINCE, city_of
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.wire.identity import check_uscc
from qilu_contract.wire.ids import check_id, check_new_id

MAX_BATCH = 5_000
"""Units in one ingest call."""
MAX_COLUMNS = 20_000
"""Units in one ingest call by column."""


def _one_of(known: Any, what: str) -> AfterValidator:
    """Of few: the error names them all."""

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"not {what}; there are {', '.join(known)}")
        return value

    return AfterValidator(check)


def _check_county(value: str) -> str:
    if value in COUNTIES:
        return value
    what = "not the code of a county of Shandong (GB/T 2260)"
    city = CITIES.get(city_of(value))
    if city is None:
        cities = ", ".join(f"{code[:4]} {each.name}" for code, each in CITIES.items())
        raise ValueError(f"{what}; one has six digits and begins with its city's four: {cities}")
    counties = (f"{code} {each.name}" for code, each in COUNTIES.items() if each.city == city.code)
    raise ValueError(f"{what}; {city.name} has {', '.join(counties)}")


def _check_place(value: str) -> str:
    return value if value in CITIES or value == PROVINCE else _check_county(value)


_SPACES = dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
"""Spaces other than U+0020, such as the ideographic one: Python counts none of them as printable."""


def is_printable(text: str) -> bool:
    """Whether `text` holds neither control characters nor line breaks; spaces of every width are fine."""
    return text.isprintable() or text.translate(_SPACES).isprintable()


def _clean(value: str) -> str:
    if value != value.strip():
        raise ValueError("begins or ends with a space: leave it out")
    if not is_printable(value):
        place, wrong = next((at, each) for at, each in enumerate(value, 1) if not is_printable(each))
        raise ValueError(f"character {place} (U+{ord(wrong):04X}) is not printable: leave it out")
    return value


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("holds a NUL character, which a database cannot take: leave it out")
    return value


Text = Annotated[str, AfterValidator(_storable)]
"""Any text that both databases take."""
MAX_INTEGER = 2**63 - 1
"""The largest number that both databases take."""
Id = Annotated[str, AfterValidator(lambda value: check_id(value, "the value"))]
NewId = Annotated[str, AfterValidator(lambda value: check_new_id(value, "the value"))]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_clean)]
CountyCode = Annotated[str, AfterValidator(_check_county)]
CityCode = Annotated[str, _one_of(CITIES, "the code of a city of Shandong (GB/T 2260)")]
IndustryCode = Annotated[str, _one_of(BRANCHES, "an industry or a section of GB/T 4754")]
ClassName = Annotated[str, _one_of(CATALOGUE, "an equipment class")]
PlaceCode = Annotated[str, AfterValidator(_check_place)]
Uscc = Annotated[str, Field(max_length=64), AfterValidator(check_uscc)]
TsMs = Annotated[int, Field(ge=0, le=MAX_TIME_MS, strict=True)]
Yuan = Annotated[int, Field(ge=0, le=10**12, strict=True)]


class Kind(StrEnum):
    """The four kinds of cloud action."""

    INFRASTRUCTURE = "infrastructure"
    PLATFORM = "platform"
    BUSINESS = "business"
    EQUIPMENT = "equipment"


class Recognised(StrEnum):
    """What the programme recognises; the first three are the tiers of platforms, the lowest first."""

    ENTERPRISE_LEVEL = "enterprise_level"
    CROSS_INDUSTRY = "cross_industry"
    COMPREHENSIVE = "comprehensive"
    LEADING = "leading"
    SUPPLIER = "supplier"
    APPLICATION = "application"
    PILOT = "pilot"
    BASE = "base"
    CLUSTER = "cluster"


TIERS = (Recognised.ENTERPRISE_LEVEL, Recognised.CROSS_INDUSTRY, Recognised.COMPREHENSIVE)
"""One-Ten-Hundred: a platform stands in the highest tier that it was recognised in."""


class Level(StrEnum):
    """Who pays of a voucher."""

    PROVINCE = "province"
    CITY = "city"
    COUNTY = "county"


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    VIEWER = "viewer"
    ENTERPRISE = "enterprise"
    INGEST = "ingest"
    FLEET = "fleet"


UnitState = Literal["registered", "on_cloud", "suspended", "retired"]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", use_enum_values=True)

    def row(self) -> dict[str, Any]:
        """As the registry's columns are called."""
        return self.model_dump(by_alias=True)


def _example(**value: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class EnterpriseIn(_In):
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


class UnitIn(_In):
    model_config = _example(**{"class": "motor", "enterprise": "370202-e00007", "name": "Pump motor 3"})

    id: NewId | None = Field(None, description="Made by the platform when left out; never reused.")
    class_: ClassName = Field(alias="class")
    enterprise: Id = Field(description="The enterprise that owns it; gives county, city and industry.")
    name: Name | None = None


class ProviderIn(_In):
    model_config = _example(name="Haier COSMOPlat")

    id: NewId | None = None
    name: Name


class ContractIn(_In):
    model_config = _example(enterprise="370202-e00007", provider="provider-1", kind="equipment")

    id: NewId | None = None
    enterprise: Id
    provider: Id
    kind: Kind


class CentreIn(_In):
    model_config = _example(name="Qingdao experience centre", city="370200", park="Laoshan")

    id: NewId | None = None
    name: Name
    city: CityCode
    park: Name | None = None


class RecognitionIn(_In):
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


class DisbursementIn(_In):
    model_config = _example(level="county", granted=120_000, redeemed=90_000, clawed_back=3_000)

    id: NewId | None = None
    level: Level = Field(description="Whose money it is.")
    granted: Yuan = Field(description="Promised by vouchers, in yuan.")
    redeemed: Yuan = Field(description="Paid for vouchers.")
    clawed_back: Yuan = Field(description="Taken back of what was paid.")


class EndingsIn(_In):
    model_config = _example(contracts=["370202-e00007-equipment"])

    contracts: list[Annotated[Text, Field(max_length=256)]] = Field(max_length=MAX_BATCH)


class KeyIn(_In):
    model_config = _example(name="line 3 gateway", role="ingest")

    name: Name
    role: Role
    enterprise: Id | None = Field(None, description="For the role `enterprise`: the one whose data it sees.")

    @model_validator(mode="after")
    def _check_enterprise(self) -> KeyIn:
        if (self.role == Role.ENTERPRISE) != (self.enterprise is not None):
            raise ValueError("`enterprise` is given with the role `enterprise`, and only then")
        return self


class RotationIn(_In):
    model_config = _example(grace_s=3600)

    grace_s: int = Field(0, ge=0, le=30 * 86_400, description="Seconds that the old key goes on working.")


Days = Annotated[int, Field(ge=1, le=825, description="How long it is valid.")]


class CertificateIn(_In):
    model_config = _example(csr="-----BEGIN CERTIFICATE REQUEST-----\n…", days=365)

    csr: str = Field(
        max_length=16_384,
        description="In PEM; its key is signed, its names are replaced by the enterprise's id.",
    )
    days: Days = 365


class BundleIn(_In):
    model_config = _example(days=365)

    days: Days = 365


class AdmissionIn(_In):
    model_config = _example(units=["370202-motor-0000123"])

    # Not checked one by one: what is no id is simply not found.
    units: list[Annotated[Text, Field(max_length=256)]] = Field(max_length=MAX_BATCH)


class AdmissionColumnsIn(AdmissionIn):
    units: list[Annotated[Text, Field(max_length=256)]] = Field(max_length=MAX_COLUMNS)


class ReadingIn(_In):
    unit: Annotated[Text, Field(max_length=256)]
    ts_ms: TsMs


class ReadingsIn(_In):
    model_config = _example(readings=[{"unit": "370202-motor-0000123", "ts_ms": 1767225600000}])

    readings: list[ReadingIn] = Field(max_length=MAX_BATCH)


class ReadingColumnsIn(_In):
    """The same by column: as many times as units."""

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
        description="What was wrong, and the beginning of what was sent."
    )


class ProblemsIn(_In):
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


class UnitOut(BaseModel):
    """For the API's description; answers are built from rows."""

    id: str
    identifier: str = Field(description="Its industrial-internet identifier, which follows from its id.")
    class_: str = Field(alias="class")
    enterprise: str
    name: str | None
    county: str
    city: str
    industry: str
    state: UnitState
    registered_ms: int
    on_cloud_ms: int | None = Field(description="Time of its first reading.")
    suspended_ms: int | None
    retired_ms: int | None
    active: bool = Field(
        description="Heard of in the last 24 hours, and not gone since; on cloud and not active is stale."
    )
    last_heard_ms: int | None = Field(
        description="The hour of its latest reading that was reported, or the time of its first reading."
    )


class EnterpriseOut(BaseModel):
    id: str
    name: str
    county: str
    city: str
    industry: str
    uscc: str | None
    registered_ms: int
    on_cloud_ms: int | None = Field(description="When its first contract began.")
    contracts_current: int
    suspended_ms: int | None = Field(description="Since when it may not speak.")


class CertificateOut(BaseModel):
    id: str = Field(description="Its serial number, hexadecimal.")
    enterprise: str = Field(description="Its common name: the edge node.")
    state: Literal["valid", "expired", "revoked"]
    issued_ms: int
    ends_ms: int
    revoked_ms: int | None


class IssuedOut(CertificateOut):
    certificate: str = Field(description="In PEM.")
    ca: str = Field(description="The authority's certificate, in PEM.")


class ProviderOut(BaseModel):
    id: str
    name: str
    registered_ms: int


class ContractOut(BaseModel):
    id: str
    enterprise: str
    provider: str
    kind: Kind
    registered_ms: int
    ended_ms: int | None


class CentreOut(BaseModel):
    id: str
    name: str
    city: str
    park: str | None
    registered_ms: int


class RecognitionOut(BaseModel):
    id: str
    kind: Recognised
    place: str
    subject: str | None
    registered_ms: int
    ended_ms: int | None = Field(description="When its platform rose to a higher tier.")


class DisbursementOut(BaseModel):
    id: str
    level: Level
    granted: int
    redeemed: int
    clawed_back: int
    registered_ms: int


class LineErrorOut(BaseModel):
    line: int
    detail: str


class BulkOut(BaseModel):
    created: int
    existing: int
    errors: list[LineErrorOut]


class CommandIn(BaseModel):
    """What a unit is told to do. Whether it takes it, and within which range, is the unit's to say."""

    model_config = ConfigDict(extra="forbid")

    command: Literal["set_point", "start", "stop", "reset", "fault"]
    name: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_clean)] | None = None
    """The set point's or the fault's."""
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    """The set point, or the fault's severity (above 0, at most 1; 1 without it)."""
    duration_s: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    """How long a fault lasts; without it as long as such faults usually do."""

    @model_validator(mode="after")
    def _whole(self) -> CommandIn:
        if self.command == "set_point" and (self.name is None or self.value is None):
            raise ValueError("a set point takes a name and a value")
        if self.command == "fault" and self.name is None:
            raise ValueError("a fault takes a name")
        if self.command in ("start", "stop", "reset") and (self.name, self.value) != (None, None):
            raise ValueError(f"{self.command} takes neither name nor value")
        if self.command != "fault" and self.duration_s is not None:
            raise ValueError("only a fault takes duration_s")
        return self
