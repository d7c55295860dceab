"""State routes: suspend, resume, retire and end registered resources; and a unit's history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import Connection, select

from qilu_platform.api.common import (
    CONFLICT,
    NOT_FOUND,
    PROBLEMS,
    AnId,
    Operator,
    Owner,
    ReaderOrFleet,
    RuntimeDep,
    answer,
)
from qilu_platform.api.resources import change, show
from qilu_platform.broker.certificates import touch_rules
from qilu_platform.broker.device_passwords import touch_if_it_has_one
from qilu_platform.database.schema import units
from qilu_platform.errors import Conflict, NotFound
from qilu_platform.models.answers import ContractOut, EnterpriseOut, UnitOut
from qilu_platform.models.bodies import EndingsIn
from qilu_platform.models.reports import EndingsOut, HistoryOut
from qilu_platform.registry import audit_log, endings, suspending
from qilu_platform.registry.audit_log import suspended_by_owner
from qilu_platform.registry.keys import Caller
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["registry"], responses=PROBLEMS)


@router.post("/enterprises/{id}/suspend", response_model=EnterpriseOut, responses=NOT_FOUND)
async def suspend_enterprise(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """Bars it and all of its units from speaking and takes them out of the current counts, until it is
    resumed. Its certificates are on hold meanwhile."""
    return await _change_enterprise(runtime, caller, id, "suspended", suspending.suspend_enterprise)


@router.post("/enterprises/{id}/resume", response_model=EnterpriseOut, responses=NOT_FOUND)
async def resume_enterprise(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """Undoes a suspension; units that were suspended by themselves stay so."""
    return await _change_enterprise(runtime, caller, id, "resumed", suspending.resume_enterprise)


async def _change_enterprise(
    runtime: Runtime, caller: Caller, id_: str, action: str, apply: Callable[[Connection, str], bool]
) -> Response:
    def work(connection: Connection) -> bool:
        changed = apply(connection, id_)
        if changed:
            touch_rules(connection)
        return changed

    await change(runtime, caller, f"enterprises/{id_}", action, work)
    return await show(runtime, caller, "enterprises", id_)


@router.get("/units/{id}/history", response_model=HistoryOut, responses=NOT_FOUND)
async def get_unit_history(runtime: RuntimeDep, caller: ReaderOrFleet, id: AnId) -> Response:
    """Its history, oldest first, with the acting key if there was one."""

    def work(connection: Connection) -> list[dict[str, Any]] | None:
        row = connection.execute(select(units).where(units.c.id == id)).one_or_none()
        if row is None or not caller.sees(row.enterprise):
            return None
        return audit_log.history(connection, row._mapping)

    items = await runtime.database.read(work)
    if items is None:
        raise NotFound(f"unit {id} does not exist.")
    return answer({"unit": id, "items": items})


@router.post("/units/{id}/suspend", response_model=UnitOut, responses=NOT_FOUND | CONFLICT)
async def suspend_unit(runtime: RuntimeDep, caller: Owner, id: AnId) -> Response:
    """Takes it out of the current counts and bars it from speaking, until it is resumed. A suspension by an
    operator holds until an operator ends it."""
    await show(runtime, caller, "units", id)

    def work(connection: Connection) -> bool:
        changed = suspending.suspend_unit(connection, id)
        touch_if_it_has_one(connection, id)
        # An operator makes the owner's suspension its own: from then on the owner cannot end it.
        return changed or (caller.enterprise is None and suspended_by_owner(connection, id))

    await change(runtime, caller, f"units/{id}", "suspended", work)
    return await show(runtime, caller, "units", id)


@router.post("/units/{id}/resume", response_model=UnitOut, responses=NOT_FOUND | CONFLICT)
async def resume_unit(runtime: RuntimeDep, caller: Owner, id: AnId) -> Response:
    """Undoes a suspension. A key of an enterprise undoes only what such a key did."""
    await show(runtime, caller, "units", id)

    def work(connection: Connection) -> bool:
        changed = suspending.resume_unit(connection, id)
        touch_if_it_has_one(connection, id)
        if changed and caller.enterprise is not None and not suspended_by_owner(connection, id):
            raise Conflict(f"unit {id} was suspended by an operator: ask for it to be resumed.")
        return changed

    await change(runtime, caller, f"units/{id}", "resumed", work)
    return await show(runtime, caller, "units", id)


@router.post("/units/{id}/retire", response_model=UnitOut, responses=NOT_FOUND)
async def retire_unit(runtime: RuntimeDep, caller: Owner, id: AnId) -> Response:
    """Takes it out of the current counts, for good; its id is never used again."""
    await show(runtime, caller, "units", id)

    def work(connection: Connection) -> bool:
        touch_if_it_has_one(connection, id)
        return suspending.retire_unit(connection, id)

    await change(runtime, caller, f"units/{id}", "retired", work)
    return await show(runtime, caller, "units", id)


@router.post("/contracts/{id}/end", response_model=ContractOut, responses=NOT_FOUND)
async def end_contract(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """Ends a contract. Without contracts an enterprise is no longer currently on cloud; it stays
    onboarded."""
    await change(runtime, caller, f"contracts/{id}", "ended", lambda found: endings.end_contract(found, id))
    return await show(runtime, caller, "contracts", id)


@router.post("/contracts/end", response_model=EndingsOut)
async def end_contracts(runtime: RuntimeDep, caller: Operator, body: EndingsIn) -> Response:
    """Ends many at once; `ended`, `already` and the different `unknown` ones add up to those given."""

    def work(connection: Connection) -> dict[str, Any]:
        done = endings.end_contracts(connection, body.contracts)
        if done.ended:
            audit_log.record(connection, caller, "ended", "contracts", ended=done.ended)
        return {"ended": done.ended, "already": done.already, "unknown": done.unknown}

    return answer(await runtime.database.write(work))
