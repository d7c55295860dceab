"""Security events: wrong keys, wrong topics, refused commands, ended certificates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field
from qilu_contract.security import SecurityKind
from qilu_contract.wire.ids import ID_PATTERN

from qilu_platform.api.common import PROBLEMS, Reader, RuntimeDep, answer
from qilu_platform.models.fields import CityCode
from qilu_platform.registry import security

router = APIRouter(prefix="/v1/security", tags=["problems"], responses=PROBLEMS)


class SecurityEventOut(BaseModel):
    kind: SecurityKind
    enterprise: str = Field(description="Empty where nobody knows it.")
    subject: str = Field(description="A unit, a key, a certificate, or the address of a client.")
    county: str
    count: int
    first_ms: int
    last_ms: int
    detail: str = Field(description="Of the last one.")


class SecurityEventsOut(BaseModel):
    items: list[SecurityEventOut] = Field(
        description="The latest first. Of each kind 2,000 are kept; older ones add up to one for each city."
    )
    by_kind: dict[SecurityKind, int]
    by_city: dict[str, int] = Field(description="By the city's code.")
    by_enterprise: dict[str, int] = Field(description="The thousand with most.")


@router.get("/events", response_model=SecurityEventsOut)
async def list_security_events(
    runtime: RuntimeDep,
    caller: Reader,
    kind: SecurityKind | None = None,
    city: CityCode | None = None,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Security events, counted by kind, city and enterprise. Keys: `unknown_key`, `revoked_key`, `forbidden`
    (the role does not allow it), `rate_limit`. Edge nodes: `wrong_topic` (another's unit, enterprise or
    county), `sequence` (data without a valid birth; skipped or repeated sequence numbers), `unusual_value`
    (outside the signal's range), `dead_letter_burst` (25 or more within two seconds), `refused_command`,
    `foreign_answer` (to a command of another's unit). `revoked_certificate` and `expired_certificate`: when
    one ends. `refused_certificate`: how often the broker of `qilu up` refused one; its log does not say
    whose. A key of an enterprise sees its own."""
    mine = caller.enterprise or enterprise
    if enterprise is not None and not caller.sees(enterprise):
        return answer({"items": [], "by_kind": {}, "by_city": {}, "by_enterprise": {}})
    return answer(
        await runtime.database.read(lambda connection: security.events(connection, kind, city, mine, limit))
    )
