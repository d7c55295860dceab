"""Problem routes: messages of devices that gateways refused or took in part, with the reason, for the owners
of the devices."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import Connection

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, AnId, Gateway, Reader, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.database.schema import enterprises, units
from qilu_platform.models.bodies import ProblemsIn
from qilu_platform.models.reports import DeviceProblemsOut
from qilu_platform.registry import security
from qilu_platform.registry.device_problems import latest, record
from qilu_platform.registry.listing import get_row

router = APIRouter(prefix="/v1", tags=["problems"], responses=PROBLEMS)


@router.post("/problems", status_code=204, tags=["ingest"])
async def report_problems(runtime: RuntimeDep, _caller: Gateway, body: ProblemsIn) -> Response:
    """Report readings that a gateway refused, or took only in part, since its last report. Each `count` is
    added."""

    def work(connection: Connection) -> None:
        record(connection, body.problems)
        security.record(connection, security.of_problems(body.problems))

    await runtime.database.write(work)
    return Response(status_code=204)


@router.get("/units/{id}/problems", response_model=DeviceProblemsOut, responses=NOT_FOUND)
async def list_unit_problems(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    """The latest problem of each kind, newest first. A unit that is not registered has problems too: they
    belong to the enterprise that its topic named."""

    def work(connection: Connection) -> list[dict[str, Any]] | None:
        items = latest(connection, unit=id, enterprise=caller.enterprise)
        unit = None if items else get_row(connection, units, id)
        hidden = unit is None or not caller.sees(unit["enterprise"])
        return None if not items and hidden else items

    items = await runtime.database.read(work)
    if items is None:
        raise Problem(404, f"unit {id} does not exist.")
    return answer({"items": items})


@router.get("/enterprises/{id}/problems", response_model=DeviceProblemsOut, responses=NOT_FOUND)
async def list_enterprise_problems(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    """The latest problems of all units that send as this enterprise, newest first; at most 1,000 are kept."""

    def work(connection: Connection) -> list[dict[str, Any]] | None:
        if not caller.sees(id) or get_row(connection, enterprises, id) is None:
            return None
        return latest(connection, enterprise=id)

    items = await runtime.database.read(work)
    if items is None:
        raise Problem(404, f"enterprise {id} does not exist.")
    return answer({"items": items})
