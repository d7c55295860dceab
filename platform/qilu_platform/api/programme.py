"""Routes for the programme's counts. Public, because they name no enterprise."""

from __future__ import annotations

from fastapi import APIRouter, Response

from qilu_platform.api.common import AWAY, CONFLICT, INVALID, PROBLEMS, Operator, RuntimeDep, answer
from qilu_platform.counting.programme import programme, read_counts
from qilu_platform.models.policy import AgainIn, ReplayIn, ReplayOut, SpeedIn
from qilu_platform.models.reports import ProgrammeOut
from qilu_platform.registry import audit_log

router = APIRouter(prefix="/v1", tags=["programme"], responses=INVALID | AWAY)


@router.get("/programme", response_model=ProgrammeOut)
async def get_programme(runtime: RuntimeDep) -> Response:
    """Targets, what was onboarded (ever; never decreases) and is current, the counts by city and class, and
    vouchers by who pays, in yuan."""
    counts = await runtime.database.read(read_counts)
    return answer(programme(counts), headers={"Cache-Control": "no-cache"})


@router.put("/programme/replay", status_code=204, response_model=None, responses=PROBLEMS)
async def tell_replay(runtime: RuntimeDep, _caller: Operator, body: ReplayIn) -> Response:
    """Tell this replica's viewers, by the event `replay`, which month is being played and at which scale."""
    standing = body.model_dump()
    runtime.show.hear(standing)
    runtime.hub.publish("replay", standing)
    return Response(status_code=204)


@router.get("/programme/replay", response_model=ReplayOut)
async def get_replay(runtime: RuntimeDep) -> Response:
    """The run of the model that is played into this platform, and what its viewers asked for."""
    return answer(runtime.show.value(), headers={"Cache-Control": "no-cache"})


@router.post("/programme/replay/pause", status_code=204, response_model=None, responses=PROBLEMS | CONFLICT)
async def pause_replay(runtime: RuntimeDep, _caller: Operator) -> Response:
    """Ask the player to pause; it does within a second, at the end of what it is publishing."""
    runtime.show.pause(True)
    return Response(status_code=204)


@router.post("/programme/replay/resume", status_code=204, response_model=None, responses=PROBLEMS | CONFLICT)
async def resume_replay(runtime: RuntimeDep, _caller: Operator) -> Response:
    """Ask the player to resume."""
    runtime.show.pause(False)
    return Response(status_code=204)


@router.post("/programme/replay/speed", status_code=204, response_model=None, responses=PROBLEMS | CONFLICT)
async def set_replay_speed(runtime: RuntimeDep, _caller: Operator, body: SpeedIn) -> Response:
    """Ask the player for another speed; it follows within a second, within the month being played. A month
    takes no less time than its registrations and readings need."""
    runtime.show.set_speed(body.speed)
    return Response(status_code=204)


@router.post("/programme/replay/again", status_code=204, response_model=None, responses=PROBLEMS | CONFLICT)
async def start_replay_again(runtime: RuntimeDep, caller: Operator, body: AgainIn) -> Response:
    """Ask the stack to begin again from the first month, with another scenario if one is given. The platform
    restarts with an empty registry; keys and sessions stay. The data of the run before is kept beside it,
    and replaced at the next restart."""
    scenario = runtime.show.again(body.scenario)
    await runtime.database.write(
        lambda found: audit_log.record(found, caller, "began again", "programme", scenario=scenario)
    )
    return Response(status_code=204)
