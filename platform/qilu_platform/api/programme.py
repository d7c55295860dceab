"""Routes for the programme's counts. Public, because they name no enterprise."""

from __future__ import annotations

from fastapi import APIRouter, Response

from qilu_platform.api.common import AWAY, INVALID, RuntimeDep, answer
from qilu_platform.counting.programme import programme, read_counts
from qilu_platform.models.reports import ProgrammeOut

router = APIRouter(prefix="/v1", tags=["programme"], responses=INVALID | AWAY)


@router.get("/programme", response_model=ProgrammeOut)
async def get_programme(runtime: RuntimeDep) -> Response:
    """Targets, what was onboarded (ever; never decreases) and is current, the counts by city and class, and
    vouchers by who pays, in yuan."""
    counts = await runtime.database.read(read_counts)
    return answer(programme(counts), headers={"Cache-Control": "no-cache"})
