"""Routes for OEE, and for the states of a unit."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field
from qilu_contract.catalogue.effectiveness import EFFECTIVENESS
from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.wire.ids import ID_PATTERN

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, AnId, Reader, RuntimeDep, answer
from qilu_platform.api.periods import From, To, period_ms
from qilu_platform.api.problems import Problem
from qilu_platform.api.readings import asking, unit_of
from qilu_platform.broker import commanding
from qilu_platform.models.fields import ClassName, PlaceCode
from qilu_platform.monitoring import effectiveness
from qilu_platform.monitoring.overview import level_of

router = APIRouter(prefix="/v1", tags=["readings"], responses=PROBLEMS)

MAX_UNIT_MS = 86_400_000
"""Longest period of one unit, whose readings are read: 86,400 rows at one a second."""
MAX_ALARMS = MAX_COMMANDS = 1_000
_DAY_MS, _SHIFT_MS = 86_400_000, 8 * 3_600_000
_SHIFT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)


class StopOut(BaseModel):
    reason: str | None = Field(description="A signal of the class; null: the reason is not known.")
    seconds: float


class OeeOut(BaseModel):
    """Terms of ISO 22400-2. Ratios are null where nothing was observed, or nothing made."""

    planned_s: float = Field(description="Planned busy time, in seconds.")
    run_s: float = Field(description="Actual production time.")
    ideal_s: float = Field(description="Planned run time of the items made.")
    good_s: float = Field(description="Planned run time of the good items.")
    availability: float | None
    effectiveness: float | None
    quality: float | None
    oee: float | None
    stops: list[StopOut]
    assumed: list[str] = Field(description="Assumptions behind the figures.")


class ClassOeeOut(OeeOut):
    model_config = ConfigDict(populate_by_name=True)

    class_: str = Field(alias="class")
    columns: list[str]
    rows: list[list[float | None]] = Field(description="By minute, or by hour for more than two days.")


class StateOut(BaseModel):
    from_ms: int
    to_ms: int
    state: Literal["running", "stopped"]
    reason_kind: Literal["signal", "command", "alarm"] | None
    reason: str | None


class UnitOeeOut(OeeOut):
    unit: str
    states: list[StateOut] = Field(description="In order of time; gaps have no readings.")


@router.get("/oee", response_model=ClassOeeOut)
async def get_oee(
    runtime: RuntimeDep,
    caller: Reader,
    class_: Annotated[ClassName, Query(alias="class")],
    place: PlaceCode | None = None,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    from_: From = None,
    to: To = None,
) -> Response:
    """OEE of a class in a place, or of an enterprise's units of the class, from roll-ups; one day without
    `from`."""
    _known(class_)
    if place is not None and enterprise is not None:
        raise Problem(422, "enterprise: give either a place or an enterprise.")
    if enterprise is not None and not caller.sees(enterprise):
        raise Problem(404, f"enterprise {enterprise} does not exist.")
    start_ms, end_ms = period_ms(from_, to, _DAY_MS)
    where = ("enterprise", enterprise) if enterprise else (level_of(place or PROVINCE), place or PROVINCE)
    async with asking(runtime) as store:
        try:
            found = await effectiveness.of_place(store, *where, class_, start_ms, end_ms)
        except effectiveness.TooManyRowsError as error:
            raise Problem(422, f"from: {error}.") from error
    return answer(found)


@router.get("/units/{id}/oee", response_model=UnitOeeOut, responses=NOT_FOUND)
async def get_unit_oee(
    runtime: RuntimeDep,
    caller: Reader,
    id: AnId,
    from_: From = None,
    to: To = None,
    shift: Annotated[
        str | None,
        Query(description="Planned busy time of each day, local time, such as 08:00-17:00; else all time."),
    ] = None,
) -> Response:
    """OEE and states of a unit, at most a day, from its readings; eight hours without `from`."""
    unit = await unit_of(runtime, caller, id)
    _known(unit["class"])
    start_ms, end_ms = period_ms(from_, to, _SHIFT_MS, MAX_UNIT_MS)
    history = effectiveness.UnitHistory(unit["class"], start_ms, _minutes(shift))
    async with asking(runtime, unit["county"]) as store:
        try:
            await history.read(store, id, end_ms)
        except effectiveness.TooManyRowsError as error:
            raise Problem(422, f"from: {error}.") from error
        breaches = await store.newest("alarm", {"unit": id}, 0, end_ms, MAX_ALARMS)
    commands = await runtime.database.read(lambda found: commanding.of_unit(found, id, MAX_COMMANDS))
    assumed = list(EFFECTIVENESS[unit["class"]].assumed)
    if shift is not None:
        assumed[0] = f"Planned busy time is {shift} of each day, local time."
    shown = history.seconds.shown()
    return answer({"unit": id, **shown, "assumed": assumed, "states": history.states(breaches, commands)})


def _known(class_name: str) -> None:
    if class_name not in EFFECTIVENESS:
        raise Problem(
            422,
            f"class: a {class_name} has no OEE, as it reports no states and cycles; "
            f"these do: {', '.join(EFFECTIVENESS)}.",
        )


def _minutes(shift: str | None) -> tuple[int, int] | None:
    """Minutes of the day at which a shift begins and ends. Raises Problem."""
    if shift is None:
        return None
    found = _SHIFT.fullmatch(shift)
    if found is None:
        raise Problem(422, "shift: give two times of the day, such as 08:00-17:00.")
    hours = [int(each) for each in found.groups()]
    return hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
