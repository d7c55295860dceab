"""Models of answers, for the API description only: answers are built from rows, and not validated."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from qilu_platform.models.fields import Kind, Level, Recognised, UnitState

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    items: list[Item]
    next: str | None = Field(description="`cursor` of the page after; null on the last one.")


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
        description="The hour of its latest reading that was reported; not before its first reading, nor "
        "before its registration in that hour."
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


_CERTIFICATE: JsonDict = {
    "id": "3d5b0a9c1e2f47586a7b8c9d0e1f2a3b4c5d6e7f",
    "enterprise": "370202-e00007",
    "state": "valid",
    "issued_ms": 1767225600000,
    "ends_ms": 1798761600000,
    "revoked_ms": None,
}


class CertificateOut(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_CERTIFICATE]})

    id: str = Field(description="Its serial number, hexadecimal.")
    enterprise: str = Field(description="Its common name: the edge node.")
    state: Literal["valid", "expired", "revoked"]
    issued_ms: int
    ends_ms: int
    revoked_ms: int | None


class IssuedOut(CertificateOut):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _CERTIFICATE | {"certificate": "-----BEGIN CERTIFICATE-----\n…", "ca": "-----BEGIN …"}
            ]
        }
    )

    certificate: str = Field(description="In PEM.")
    ca: str = Field(description="The authority's certificate, in PEM.")


class BrokerRulesOut(BaseModel):
    version: str = Field(description="Changes with what the files say.")
    files: dict[str, str] = Field(description="By name, as Mosquitto reads them.")


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


class EnterprisePage(Page[EnterpriseOut]):
    pass


class UnitPage(Page[UnitOut]):
    pass


class ProviderPage(Page[ProviderOut]):
    pass


class ContractPage(Page[ContractOut]):
    pass


class CentrePage(Page[CentreOut]):
    pass


class RecognitionPage(Page[RecognitionOut]):
    pass


class DisbursementPage(Page[DisbursementOut]):
    pass


class CertificatePage(Page[CertificateOut]):
    pass
