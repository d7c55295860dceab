"""For gateways: who may speak, who spoke. Safe to repeat: a unit counts once, whatever is delivered twice."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from qilu_contract.readings import MAX_TIME_MS

from qilu_platform.api.common import PROBLEMS, RuntimeDep, allow, answer
from qilu_platform.audit_log import barred_after
from qilu_platform.keys import Caller
from qilu_platform.models import MAX_BATCH, MAX_INTEGER, AdmissionIn, ReadingIn, ReadingsIn, Role
from qilu_platform.onboarding import Report, admission, fall_silent, report
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1/ingest", tags=["ingest"], responses=PROBLEMS)

Gateway = Annotated[Caller, Depends(allow(Role.INGEST))]


def _shows(**example: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}}}}


_UNIT = {
    "class": "motor",
    "enterprise": "370202-e00007",
    "county": "370202",
    "city": "370200",
    "industry": "C31",
    "on_cloud": True,
}


@router.post("/admission", responses=_shows(units={"370202-motor-0000123": _UNIT}))
async def admit(runtime: RuntimeDep, _caller: Gateway, body: AdmissionIn) -> Response:
    """Of the units asked for, those that may speak; unknown and retired ones are absent."""
    found = await runtime.database.read(lambda connection: admission(connection, body.units))
    return answer({"units": found})


@router.get(
    "/barred",
    responses=_shows(epoch="9f2c4e5a01b7d368", next=17, units=["my-motor"], enterprises=[]),
)
async def barred(
    runtime: RuntimeDep,
    _caller: Gateway,
    after: Annotated[
        int | None, Query(ge=0, le=MAX_INTEGER, description="`next` of the answer before.")
    ] = None,
) -> Response:
    """Who was suspended or retired since: their admission is to be asked for anew. Up to 5,000 at a time;
    without `after` nobody, only where to go on from. When `epoch` is another one than before, or `next` is
    less than `after`, the registry may have been restored from a backup: doubt every answer from before."""
    return answer(await runtime.database.read(lambda connection: barred_after(connection, after)))


class _Reading(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    unit: Annotated[str, msgspec.Meta(max_length=256, pattern=r"^[^\x00]*$")]
    ts_ms: Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]


class _Readings(msgspec.Struct, forbid_unknown_fields=True):
    readings: Annotated[list[_Reading], msgspec.Meta(max_length=MAX_BATCH)]


_decode = msgspec.json.Decoder(_Readings).decode
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
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
                "example": {"readings": [{"unit": "370202-motor-0000123", "ts_ms": 1767225600000}]},
            }
        },
    }
}


async def _report(runtime: Runtime, request: Request, *, first: bool) -> Report:
    body = await request.body()
    given: _Readings | ReadingsIn
    try:
        # Several times as fast as a model, and this is the busiest of all bodies.
        given = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:
            given = ReadingsIn.model_validate_json(body)  # says what is wrong, and where
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_url=False)) from error
    readings = [(reading.unit, reading.ts_ms) for reading in given.readings]
    return await runtime.database.write(lambda connection: report(connection, readings, first=first))


@router.post("/first-readings", responses=_shows(counted=1, already=0, unknown=[]), openapi_extra=_BODY)
async def first_readings(runtime: RuntimeDep, _caller: Gateway, request: Request) -> Response:
    """Readings that are durably stored, the first of their units as far as the gateway knows: puts the units
    on cloud. `counted`, `already` and the readings of `unknown` units add up to the readings given."""
    done = await _report(runtime, request, first=True)
    return answer({"counted": done.counted, "already": done.already, "unknown": done.unknown})


@router.post("/activity", responses=_shows(updated=1), openapi_extra=_BODY)
async def activity(runtime: RuntimeDep, _caller: Gateway, request: Request) -> Response:
    """Units that were heard of lately; a unit is worth reporting once an hour."""
    done = await _report(runtime, request, first=False)
    return answer({"updated": done.active})


@router.post("/deaths", responses=_shows(stale=1))
async def deaths(runtime: RuntimeDep, _caller: Gateway, body: AdmissionIn) -> Response:
    """Units that are gone, as their edge nodes say: they are not active until they are heard of again."""
    stale = await runtime.database.write(lambda connection: fall_silent(connection, body.units))
    return answer({"stale": stale})
