"""Dead letter routes: list messages that the gateway could not accept, and replay them once their cause is
fixed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from qilu_contract.errors import Reason

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, RuntimeDep, allow, answer
from qilu_platform.api.problems import Problem
from qilu_platform.models.fields import Id, Role
from qilu_platform.models.letters import LetterId, LettersIn, LettersOut, LettersReplayedOut
from qilu_platform.monitoring import dead_letters
from qilu_platform.monitoring.dead_letters import GatewayAway
from qilu_platform.registry import audit_log
from qilu_platform.registry.keys import Caller

router = APIRouter(prefix="/v1/dead-letters", tags=["problems"], responses=PROBLEMS)

Operator = Annotated[Caller, Depends(allow(Role.OPERATOR))]
LIMIT = 50


@router.get("", response_model=LettersOut)
async def list_dead_letters(
    runtime: RuntimeDep,
    _caller: Operator,
    reason: Reason | None = None,
    unit: Id | None = None,
    before_id: LetterId | None = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT)] = LIMIT,
) -> Response:
    """The newest first."""
    state = runtime.settings.gateway_state
    if state is None:
        return answer({"gateway": False, "items": [], "next": None})
    choice = {"reason": reason, "unit": unit, "before_id": before_id}
    try:
        return answer({"gateway": True, **await dead_letters.fetch(state, choice, limit)})
    except GatewayAway as error:
        raise _away(error) from error


@router.post("/replay", response_model=LettersReplayedOut, responses=NOT_FOUND)
async def replay_dead_letters(runtime: RuntimeDep, caller: Operator, body: LettersIn) -> Response:
    """The gateway processes the letters again, as if they had just arrived; those that it accepts are gone.
    404 where the platform knows no gateway."""
    state = runtime.settings.gateway_state
    if state is None:
        raise Problem(
            404,
            "The platform knows no gateway: run `qilu gateway dead-letters replay` on the gateway's machine, "
            "or set QILU_PLATFORM_GATEWAY_STATE to its state directory.",
        )
    choice = body.model_dump(exclude_none=True)
    try:
        outcome = await dead_letters.replay(state, choice)
    except GatewayAway as error:
        raise _away(error) from error
    await runtime.database.write(
        lambda found: audit_log.record(
            found, caller, "replayed", "dead_letters", **choice, **_counts(outcome)
        )
    )
    return answer(outcome)


def _counts(outcome: dict[str, int | None]) -> dict[str, int | None]:
    return {name: outcome[name] for name in ("done", "kept")}


def _away(error: GatewayAway) -> Problem:
    return Problem(503, f"The gateway is unavailable: {error}.", headers={"Retry-After": "5"})
