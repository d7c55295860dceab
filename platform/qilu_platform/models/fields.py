"""Types of fields in bodies, and their valid values."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.catalogue.places import BRANCHES, CITIES, COUNTIES, PROVINCE, city_of
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.wire.identity import check_uscc
from qilu_contract.wire.ids import check_id, check_new_id

MAX_BATCH = 5_000
"""Units in one ingest call."""
MAX_COLUMNS = 20_000
"""Units in one ingest call by column."""


def _one_of(known: Any, what: str) -> AfterValidator:
    """Validator for one of a few values; the error lists them all."""

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


def clean(value: str) -> str:
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
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(clean)]
CountyCode = Annotated[str, AfterValidator(_check_county)]
CityCode = Annotated[str, _one_of(CITIES, "the code of a city of Shandong (GB/T 2260)")]
IndustryCode = Annotated[str, _one_of(BRANCHES, "an industry or a section of GB/T 4754")]
ClassName = Annotated[str, _one_of(REGISTRABLE, "an equipment class")]
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
    """Kinds of recognition; the first three are the tiers of platforms, the lowest first."""

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
"""One-Ten-Hundred: a platform is in the highest tier that it was recognised in."""


class Level(StrEnum):
    """Payers of a voucher."""

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


Days = Annotated[int, Field(ge=1, le=825, description="How long it is valid.")]
