"""Routes for commands to units."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from qilu_contract.wire.commands import Command

from qilu_platform.api.common import CONFLICT, NOT_FOUND, PROBLEMS, AnId, Operator, Reader, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.broker import commanding
from qilu_platform.broker.commanding import BrokerAway
from qilu_platform.database.schema import units
from qilu_platform.models.bodies import CommandIn
from qilu_platform.models.reports import CommandOut, UnitCommandsOut
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.listing import get_row
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1/units", tags=["commands"], responses=PROBLEMS)


@router.post("/{id}/commands", status_code=201, response_model=CommandOut, responses=NOT_FOUND | CONFLICT)
async def send_command(runtime: RuntimeDep, caller: Operator, id: AnId, body: CommandIn) -> Response:
    """Sends the command to the unit's edge node. The unit's answer, accepted or refused with the reason,
    appears in the list of the unit's commands; a command without an answer stays `sent`."""
    unit = await _unit(runtime, caller, id)
    if unit["state"] == "retired":
        raise Problem(409, f"unit {id} is retired.")
    commander = runtime.commander(unit["county"])
    if commander is None:
        raise Problem(503, "The platform runs without a broker: start it with --broker.")
    if not commander.connected:
        raise Problem(503, "The broker is unavailable: nothing was sent.", headers={"Retry-After": "5"})
    asked = body.model_dump(exclude_none=True)
    id_ = await runtime.database.write(lambda found: commanding.enter(found, caller, id, asked))
    default = Command(body.command)
    command = Command(
        body.command,
        body.name or "",
        default.value if body.value is None else body.value,
        body.duration_s,
        body.onset_s,
    )
    try:
        await commander.send(unit, command, id_)
    except BrokerAway as error:
        reason = f"It was not sent: {error}."
        await runtime.database.write(lambda found: commanding.settle(found, id_, "refused", reason))
    made = await runtime.database.read(lambda found: commanding.one(found, id_))
    return answer(made, 201, {"Location": f"/v1/units/{id}/commands"})


@router.get("/{id}/commands", response_model=UnitCommandsOut, responses=NOT_FOUND)
async def list_commands(
    runtime: RuntimeDep, caller: Reader, id: AnId, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """The newest first: `sent` (no answer yet), `accepted` (holds from `holds_from_ms` on, by the unit's
    clock) or `refused` (for `reason`)."""
    await _unit(runtime, caller, id)
    items = await runtime.database.read(lambda found: commanding.of_unit(found, id, limit))
    return answer({"unit": id, "items": items})


async def _unit(runtime: Runtime, caller: Caller, id_: str) -> dict[str, Any]:
    unit = await runtime.database.read(lambda connection: get_row(connection, units, id_))
    if unit is None or not caller.sees(unit["enterprise"]):
        raise Problem(404, f"unit {id_} does not exist.")
    return unit
