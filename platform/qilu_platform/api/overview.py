"""Routes for counts of places and their history. Public, because they name no enterprise."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from qilu_platform.api.common import AWAY, INVALID, RuntimeDep, answer
from qilu_platform.api.periods import Ms, period_ms
from qilu_platform.api.readings import asking
from qilu_platform.counting.activity import HOUR_MS
from qilu_platform.models.fields import PlaceCode
from qilu_platform.models.reports import PlaceEnergyOut, PlaceHistoryOut, PlaceOut
from qilu_platform.monitoring import overview

router = APIRouter(prefix="/v1/places", tags=["programme"], responses=INVALID | AWAY)

APlace = Annotated[PlaceCode, Path(description="Code of the province, a city or a county (GB/T 2260).")]


@router.get("/{code}", response_model=PlaceOut)
async def get_place(runtime: RuntimeDep, code: APlace) -> Response:
    """Counts of a place, and of the cities or counties in it."""
    found = await runtime.database.read(lambda connection: overview.place(connection, code))
    return answer(found, headers={"Cache-Control": "no-cache"})


@router.get("/{code}/history", response_model=PlaceHistoryOut)
async def get_place_history(
    runtime: RuntimeDep,
    code: APlace,
    from_: Annotated[Ms, Query(alias="from")] = None,
    to: Ms = None,
    rows: Annotated[int, Query(ge=2, le=1000)] = 200,
) -> Response:
    """History of counts, for the province and cities; the last hour without `from` and `to`."""
    start_ms, end_ms = period_ms(from_, to)
    async with asking(runtime) as store:
        return answer(await overview.history(store, code, start_ms, end_ms, rows))


@router.get("/{code}/energy", response_model=PlaceEnergyOut)
async def get_place_energy(
    runtime: RuntimeDep, code: APlace, from_: Annotated[Ms, Query(alias="from")] = None, to: Ms = None
) -> Response:
    """Hourly consumption and emissions of its equipment; one day without `from` and `to`."""
    start_ms, end_ms = period_ms(from_, to, 24 * HOUR_MS)
    async with asking(runtime) as store:
        return answer(await overview.energy(store, code, start_ms, end_ms))
