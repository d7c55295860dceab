"""Routes for gateways: admission of units, first readings and activity. Idempotent: a unit counts once,
whatever is delivered twice."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from qilu_contract.readings import MAX_TIME_MS

from qilu_platform.api.common import PROBLEMS, TOO_LARGE, Gateway, RuntimeDep, answer
from qilu_platform.models.admission import AdmissionColumnsOut, AdmissionOut, LearnedSignalsIn
from qilu_platform.models.bodies import (
    AdmissionColumnsIn,
    AdmissionIn,
    ReadingColumnsIn,
    ReadingIn,
    ReadingsIn,
    ShardsIn,
)
from qilu_platform.models.fields import MAX_BATCH, MAX_COLUMNS, MAX_INTEGER
from qilu_platform.models.reports import (
    ActivityOut,
    BarredOut,
    DeathsOut,
    FirstReadingsOut,
    ShardsOut,
)
from qilu_platform.registry.admission import admission, admission_columns
from qilu_platform.registry.audit_log import barred_after
from qilu_platform.registry.learned_signals import record
from qilu_platform.registry.onboarding import Report, fall_silent, report
from qilu_platform.registry.sharing import LEASE_MS, share
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1/ingest", tags=["ingest"], responses=PROBLEMS | TOO_LARGE)


@router.post("/admission", response_model=AdmissionOut)
async def admit(runtime: RuntimeDep, _caller: Gateway, body: AdmissionIn) -> Response:
    """The admitted units among the requested ones; unknown and retired ones are absent."""
    found = await runtime.database.read(lambda connection: admission(connection, body.units))
    return answer({"units": found})


@router.get("/barred", response_model=BarredOut)
async def list_barred(
    runtime: RuntimeDep,
    _caller: Gateway,
    after: Annotated[
        int | None, Query(ge=0, le=MAX_INTEGER, description="`next` of the answer before.")
    ] = None,
) -> Response:
    """Units and enterprises suspended or retired since `after`, whose admission must be requested again. Up
    to 5,000 at a time; without `after` none, only the position to continue from. If `epoch` has changed, or
    `next` is less than `after`, the registry may have been restored from a backup: discard all earlier
    answers."""
    return answer(await runtime.database.read(lambda connection: barred_after(connection, after)))


_Unit = Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[^\x00]*$")]
_TsMs = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]


class _Reading(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    unit: _Unit
    ts_ms: _TsMs


class _Readings(msgspec.Struct, forbid_unknown_fields=True):
    readings: Annotated[list[_Reading], msgspec.Meta(max_length=MAX_BATCH)]


class _ReadingColumns(msgspec.Struct, forbid_unknown_fields=True):
    units: Annotated[list[_Unit], msgspec.Meta(max_length=MAX_COLUMNS)]
    ts_ms: list[_TsMs]

    def __post_init__(self) -> None:
        if len(self.units) != len(self.ts_ms):
            raise ValueError("each unit has one time")


class _Units(msgspec.Struct, forbid_unknown_fields=True):
    units: Annotated[list[_Unit], msgspec.Meta(max_length=MAX_COLUMNS)]


_decode_readings = msgspec.json.Decoder(_Readings).decode
_decode_columns = msgspec.json.Decoder(_ReadingColumns).decode
_decode_units = msgspec.json.Decoder(_Units).decode


def _body(example: dict[str, Any], *schemas: dict[str, Any]) -> dict[str, Any]:
    """Request body of an operation for the API description: any of `schemas`."""
    content = {"schema": {"anyOf": list(schemas)}, "example": example}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


_READINGS = _body(
    {"readings": [{"unit": "370202-motor-0000123", "ts_ms": 1767225600000}]},
    {
        "type": "object",
        "required": ["readings"],
        "additionalProperties": False,
        "properties": {
            "readings": {
                "type": "array",
                "maxItems": MAX_BATCH,
                "items": ReadingIn.model_json_schema(),
            }
        },
    },
    ReadingColumnsIn.model_json_schema(),
)
_UNITS = _body({"units": ["370202-motor-0000123"]}, AdmissionColumnsIn.model_json_schema())


def _explained(body: bytes, model: type[BaseModel]) -> RequestValidationError:
    """Describe the error in a body that msgspec rejected. msgspec is several times as fast as a model, and
    these are the most frequent bodies."""
    try:
        model.model_validate_json(body)
    except ValidationError as error:
        return RequestValidationError(error.errors(include_url=False))
    return RequestValidationError([{"type": "value_error", "loc": (), "msg": "the body does not fit"}])


def _readings(body: bytes) -> list[tuple[str, int]]:
    try:
        columns = _decode_columns(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    else:
        return list(zip(columns.units, columns.ts_ms, strict=True))
    try:
        return [(reading.unit, reading.ts_ms) for reading in _decode_readings(body).readings]
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _explained(body, ReadingColumnsIn if b'"units"' in body else ReadingsIn) from None


async def _report(runtime: Runtime, request: Request, *, first: bool) -> Report:
    readings = _readings(await request.body())
    return await runtime.database.write(lambda connection: report(connection, readings, first=first))


@router.post(
    "/admission-columns",
    response_model=AdmissionColumnsOut,
    openapi_extra=_UNITS,
)
async def admit_columns(runtime: RuntimeDep, _caller: Gateway, request: Request) -> Response:
    """For each requested unit, in order: its class and its owner (enterprise, county, city, industry) as
    indices in `classes` and `owners`; -1 if it is not admitted. `signals` has what generic ones have sent."""
    body = await request.body()
    try:
        asked = _decode_units(body).units
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _explained(body, AdmissionColumnsIn) from None
    return answer(await runtime.database.read(lambda connection: admission_columns(connection, asked)))


@router.post("/first-readings", response_model=FirstReadingsOut, openapi_extra=_READINGS)
async def report_first_readings(runtime: RuntimeDep, _caller: Gateway, request: Request) -> Response:
    """Readings that are durably stored, the first of their units as far as the gateway knows: puts the units
    on cloud. `counted`, `already` and the readings of `unknown` units add up to the readings given."""
    done = await _report(runtime, request, first=True)
    return answer({"counted": done.counted, "already": done.already, "unknown": done.unknown})


@router.post("/activity", response_model=ActivityOut, openapi_extra=_READINGS)
async def report_activity(runtime: RuntimeDep, _caller: Gateway, request: Request) -> Response:
    """Report recently active units; once per hour and unit is enough."""
    done = await _report(runtime, request, first=False)
    return answer({"updated": done.active})


@router.post("/deaths", response_model=DeathsOut)
async def report_deaths(runtime: RuntimeDep, _caller: Gateway, body: AdmissionIn) -> Response:
    """Report units that died, according to their edge nodes: they are inactive until their next reading."""
    stale = await runtime.database.write(lambda connection: fall_silent(connection, body.units))
    return answer({"stale": stale})


@router.post("/signals", status_code=204)
async def report_signals(runtime: RuntimeDep, _caller: Gateway, body: LearnedSignalsIn) -> Response:
    """Report signals that generic units have sent. Idempotent; those of other units are left out."""
    given = [(each.unit, each.name, each.measured_in) for each in body.signals]
    await runtime.database.write(lambda connection: record(connection, given))
    return Response(status_code=204)


@router.post("/shards", response_model=ShardsOut)
async def share_shards(runtime: RuntimeDep, caller: Gateway, body: ShardsIn) -> Response:
    """Which shards of its pool a gateway serves. It asks again every few seconds; one that does not loses
    them. Gateways that share a pool have equally many each, so the answer changes when one comes or goes. The
    same name with another key is another gateway, which can neither take nor release these shards."""
    found = await runtime.database.write(lambda connection: share(connection, body, caller.key))
    return answer({**found._asdict(), "lease_s": LEASE_MS / 1000})
