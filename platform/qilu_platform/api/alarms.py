"""Alarm routes: breaches of limits, and the actions of people on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.wire.ids import ID_PATTERN
from sqlalchemy import Connection

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, AnId, Owner, Reader, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.api.readings import asking
from qilu_platform.database.schema import units
from qilu_platform.models.fields import ClassName, PlaceCode
from qilu_platform.monitoring import alarms
from qilu_platform.monitoring.alarms import State
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.listing import get_row
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["alarms"], responses=PROBLEMS)

ASignal = Annotated[str, Path(pattern="^[A-Za-z0-9_]{1,64}$")]
LOOK_AT = 5_000
"""The newest alarms that one answer looks at for a state that only the registry knows."""
MAX_SHELF_S = 30 * 86_400


class AlarmOut(BaseModel):
    unit: str
    class_: str = Field(alias="class")
    signal: str
    enterprise: str
    city: str
    county: str
    industry: str
    state: State
    since_ms: int
    ended_ms: int | None
    value: float | None = Field(description="At the begin.")
    worst: float | None
    limit: float | None
    ratio: float | None = Field(description="Worst over limit, or limit over worst where below is worse.")
    acknowledged_ms: int | None
    acknowledged_by: str | None = Field(description="The id of a key.")
    shelved_until_ms: int | None


class AlarmsOut(BaseModel):
    items: list[AlarmOut]
    more: bool = Field(description="Whether there may be others: narrow the question, or ask with `to`.")


class Acknowledgement(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"since_ms": 1767225600000}]})

    since_ms: Annotated[int, Field(ge=0, le=MAX_TIME_MS, strict=True)] = Field(
        description="The alarm's own: a later alarm of the signal is a new one."
    )


class Shelf(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"for_s": 3600}]})

    for_s: Annotated[int, Field(ge=0, le=MAX_SHELF_S, strict=True)] = Field(
        description="Seconds from now; 0 ends it."
    )


@router.get("/alarms", response_model=AlarmsOut)
async def list_alarms(
    runtime: RuntimeDep,
    caller: Reader,
    state: State | None = None,
    place: PlaceCode | None = None,
    class_: Annotated[ClassName | None, Query(alias="class")] = None,
    signal: Annotated[str | None, Query(pattern="^[A-Za-z0-9_]{1,64}$")] = None,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    unit: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    from_: Annotated[int, Query(alias="from", ge=0, le=MAX_TIME_MS, description="ms; when it began.")] = 0,
    to: Annotated[int, Query(ge=0, le=MAX_TIME_MS, description="ms; not included itself.")] = MAX_TIME_MS,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The newest first. `open` is what nobody has acknowledged or shelved; a shelved or acknowledged alarm
    lasts until its value is back."""
    if from_ > to:
        raise Problem(422, "from: must not be after `to`.")
    having: dict[str, str | int] = dict(alarms.place_tags(place))
    if enterprise is not None and not caller.sees(enterprise):
        return answer({"items": [], "more": False})
    only = {"class": class_, "signal": signal, "enterprise": caller.enterprise or enterprise, "unit": unit}
    having |= {tag: value for tag, value in only.items() if value is not None}
    if state is not None:
        having["open"] = 0 if state == "cleared" else 1
    look_at = limit + 1 if state in (None, "cleared") else LOOK_AT
    async with asking(runtime) as store:
        points = await store.newest("alarm", having, from_, to, look_at)
    found = await runtime.database.read(lambda connection: alarms.with_notes(connection, points))
    items = [each for each in found if state is None or each["state"] == state]
    return answer({"items": items[:limit], "more": len(items) > limit or len(points) == look_at})


@router.post("/units/{id}/alarms/{signal}/acknowledge", status_code=204, responses=NOT_FOUND)
async def acknowledge_alarm(
    runtime: RuntimeDep, caller: Owner, id: AnId, signal: ASignal, body: Acknowledgement
) -> Response:
    """Acknowledges an alarm: somebody handles it."""
    return await _change(
        runtime,
        caller,
        id,
        lambda connection: alarms.acknowledge(connection, caller, id, signal, body.since_ms),
    )


@router.post("/units/{id}/alarms/{signal}/shelve", status_code=204, responses=NOT_FOUND)
async def shelve_alarms(
    runtime: RuntimeDep, caller: Owner, id: AnId, signal: ASignal, body: Shelf
) -> Response:
    """Takes the alarms of this signal of this unit out of the open ones for some time."""
    return await _change(
        runtime, caller, id, lambda connection: alarms.shelve(connection, caller, id, signal, body.for_s)
    )


async def _change(
    runtime: Runtime, caller: Caller, id_: str, change: Callable[[Connection], None]
) -> Response:
    """Change the notes of a unit's alarms; 404 unless the caller sees the unit."""

    def work(connection: Connection) -> None:
        unit = get_row(connection, units, id_)
        if unit is None or not caller.sees(unit["enterprise"]):
            raise Problem(404, f"unit {id_} does not exist.")
        change(connection)

    await runtime.database.write(work)
    return Response(status_code=204)
