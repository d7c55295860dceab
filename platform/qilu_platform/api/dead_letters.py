"""Dead letter routes: list messages that a gateway could not accept, and replay them once their cause is
fixed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from qilu_contract.errors import Reason

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, Operator, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.models.fields import Id
from qilu_platform.models.letters import (
    GatewayName,
    GatewaysOut,
    LetterId,
    LettersIn,
    LettersOut,
    LettersReplayedOut,
)
from qilu_platform.monitoring.dead_letters import GatewayAway, UnknownGateway
from qilu_platform.registry import audit_log

router = APIRouter(prefix="/v1/dead-letters", tags=["problems"], responses=PROBLEMS)

LIMIT = 50


@router.get("/gateways", response_model=GatewaysOut)
async def list_gateways(runtime: RuntimeDep, _caller: Operator) -> Response:
    """The gateways whose dead letters this platform reaches. A gateway that shares shards has one entry for
    each shard that it serves now."""
    return answer({"items": await runtime.gateways.names()})


@router.get("", response_model=LettersOut, responses=NOT_FOUND)
async def list_dead_letters(
    runtime: RuntimeDep,
    _caller: Operator,
    gateway: Annotated[GatewayName | None, Query(description="Default: the first one.")] = None,
    reason: Reason | None = None,
    unit: Id | None = None,
    before_id: LetterId | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT)] = LIMIT,
) -> Response:
    """Those of one gateway, the newest first."""
    if not runtime.gateways:
        return answer({"gateway": False, "items": [], "next": None})
    choice = {"reason": reason, "unit": unit, "before_id": before_id}
    try:
        return answer({"gateway": True, **await runtime.gateways.fetch(gateway, choice, limit)})
    except (GatewayAway, UnknownGateway) as error:
        raise _problem(error) from error


@router.post("/replay", response_model=LettersReplayedOut, responses=NOT_FOUND)
async def replay_dead_letters(runtime: RuntimeDep, caller: Operator, body: LettersIn) -> Response:
    """The gateway processes the letters again, as if they had just arrived; those that it accepts are gone.
    404 where the platform does not know the gateway."""
    if not runtime.gateways:
        raise Problem(
            404,
            "The platform knows no gateway: run `qilu gateway dead-letters replay` on the gateway's machine, "
            "or set QILU_PLATFORM_GATEWAYS to the addresses of the gateways.",
        )
    choice = body.model_dump(exclude_none=True, exclude={"gateway"})
    try:
        outcome = await runtime.gateways.replay(body.gateway, choice)
    except (GatewayAway, UnknownGateway) as error:
        raise _problem(error) from error
    detail = body.model_dump(exclude_none=True) | {name: outcome[name] for name in ("done", "kept")}
    await runtime.database.write(
        lambda found: audit_log.record(found, caller, "replayed", "dead_letters", **detail)
    )
    return answer(outcome)


def _problem(error: GatewayAway | UnknownGateway) -> Problem:
    if isinstance(error, UnknownGateway):
        return Problem(404, f"{error}.")
    return Problem(503, f"The gateway is unavailable: {error}.", headers={"Retry-After": "5"})
