"""Asset Administration Shells of units."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.generic import GENERIC
from qilu_contract.store import Row, SeriesQuery

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, AnId, Reader, Responses, RuntimeDep
from qilu_platform.api.problems import Problem
from qilu_platform.api.readings import asking
from qilu_platform.assets.nameplate import unit_and_nameplate
from qilu_platform.errors import NotFound
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1/units", tags=["data catalogue"], responses=PROBLEMS | NOT_FOUND)


_MEDIA = "application/asset-administration-shell-package"
_PACKAGE: Responses = {
    200: {
        "description": "An AASX package: Nameplate, TechnicalData, TimeSeries.",
        "content": {_MEDIA: {"schema": {"type": "string", "format": "binary"}}},
    }
}
MAX_RECORDS = 1_000


@router.get("/{id}/aas", response_class=Response, responses=_PACKAGE)
async def get_asset_shell(
    runtime: RuntimeDep,
    caller: Reader,
    request: Request,
    id: AnId,
    records: Annotated[
        int, Query(ge=0, le=MAX_RECORDS, description="Latest readings in TimeSeries; 0: only their address.")
    ] = 0,
) -> Response:
    """The Asset Administration Shell of a unit (AAS 3.0), as an AASX package."""
    try:
        from qilu_platform.assets import shell
    except ModuleNotFoundError as error:
        raise Problem(
            503, "This platform has no package for shells: pip install 'clouds-in-qilu[aas]'."
        ) from error
    found = await runtime.database.read(lambda connection: unit_and_nameplate(connection, id))
    if found is None or not caller.sees(found[0]["enterprise"]):
        raise NotFound(f"unit {id} does not exist.")
    unit, nameplate = found
    if unit["class"] == GENERIC:
        raise Problem(422, f"id: {id} is a generic unit: it has no type, and so no shell.")
    rows = await _latest(runtime, unit, records) if records else []
    address = f"{str(request.base_url).rstrip('/')}/v1/units/{id}/readings"
    body = await asyncio.to_thread(shell.package, unit, nameplate, rows, address)
    headers = {"Content-Disposition": f'attachment; filename="{id}.aasx"'}
    return Response(body, headers=headers, media_type=_MEDIA)


async def _latest(runtime: Runtime, unit: dict[str, Any], records: int) -> list[Row]:
    """Readings of the span before the latest one in which so many are due, at most `records`."""
    class_ = CATALOGUE[unit["class"]]
    names = [each.name for each in class_.signals]
    async with asking(runtime, unit["county"]) as store:
        newest = await store.latest(class_.name, {"unit": unit["id"]})
        if newest is None:
            return []
        start_ms = max(0, newest.ts_ms - records * class_.base_interval_s * 1000)
        rows = await store.series(
            SeriesQuery(class_.name, {"unit": unit["id"]}, names, start_ms, newest.ts_ms + 1)
        )
    return rows[-records:]
