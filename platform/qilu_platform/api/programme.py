"""Routes for the programme's counts. Public, because they name no enterprise."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from qilu_platform.api.common import AWAY, INVALID, PROBLEMS, RuntimeDep, allow, answer
from qilu_platform.counting.programme import programme, read_counts
from qilu_platform.models.fields import Role
from qilu_platform.models.policy import ReplayIn
from qilu_platform.models.reports import ProgrammeOut
from qilu_platform.registry.keys import Caller

router = APIRouter(prefix="/v1", tags=["programme"], responses=INVALID | AWAY)

Operator = Annotated[Caller, Depends(allow(Role.OPERATOR))]


@router.get("/programme", response_model=ProgrammeOut)
async def get_programme(runtime: RuntimeDep) -> Response:
    """Targets, what was onboarded (ever; never decreases) and is current, the counts by city and class, and
    vouchers by who pays, in yuan."""
    counts = await runtime.database.read(read_counts)
    return answer(programme(counts), headers={"Cache-Control": "no-cache"})


@router.put("/programme/replay", status_code=204, response_model=None, responses=PROBLEMS)
async def tell_replay(runtime: RuntimeDep, _caller: Operator, body: ReplayIn) -> Response:
    """Tell this replica's viewers, by the event `replay`, which month is being played and at which scale."""
    runtime.hub.publish("replay", body.model_dump())
    return Response(status_code=204)
