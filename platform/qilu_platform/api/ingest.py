"""For gateways: who may speak, who spoke. Safe to repeat: a unit counts once, whatever is delivered twice."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from qilu_platform.api.common import PROBLEMS, RuntimeDep, allow, answer
from qilu_platform.keys import Caller
from qilu_platform.models import AdmissionIn, ReadingsIn, Role
from qilu_platform.onboarding import Report, admission, report
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


async def _report(runtime: Runtime, body: ReadingsIn, *, first: bool) -> Report:
    readings = [(reading.unit, reading.ts_ms) for reading in body.readings]
    return await runtime.database.write(lambda connection: report(connection, readings, first=first))


@router.post("/first-readings", responses=_shows(counted=1, already=0, unknown=[]))
async def first_readings(runtime: RuntimeDep, _caller: Gateway, body: ReadingsIn) -> Response:
    """Readings that are durably stored, the first of their units as far as the gateway knows: puts the units
    on cloud. `counted`, `already` and the readings of `unknown` units add up to the readings given."""
    done = await _report(runtime, body, first=True)
    return answer({"counted": done.counted, "already": done.already, "unknown": done.unknown})


@router.post("/activity", responses=_shows(updated=1))
async def activity(runtime: RuntimeDep, _caller: Gateway, body: ReadingsIn) -> Response:
    """Units that were heard of lately; a unit is worth reporting once an hour."""
    done = await _report(runtime, body, first=False)
    return answer({"updated": done.active})
