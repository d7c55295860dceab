"""Enterprises, units, providers, contracts, centres, recognitions, disbursements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel
from qilu_contract.catalogue.places import CITIES
from qilu_contract.wire.identity import parse_identifier
from qilu_contract.wire.ids import ID_PATTERN, is_reserved
from sqlalchemy import Connection, select

from qilu_platform.api.common import CONFLICT, NOT_FOUND, PROBLEMS, TOO_LARGE, RuntimeDep, allow, answer
from qilu_platform.api.problems import Problem
from qilu_platform.broker.certificates import touch_rules
from qilu_platform.database.schema import units
from qilu_platform.imports.bulk import MAX_LINES, register_lines
from qilu_platform.models.answers import (
    BulkOut,
    CentreOut,
    ContractOut,
    DisbursementOut,
    EnterpriseOut,
    ProviderOut,
    RecognitionOut,
    UnitOut,
)
from qilu_platform.models.bodies import (
    CentreIn,
    ContractIn,
    DisbursementIn,
    EndingsIn,
    EnterpriseIn,
    ProviderIn,
    RecognitionIn,
    UnitIn,
)
from qilu_platform.models.fields import (
    CityCode,
    ClassName,
    CountyCode,
    IndustryCode,
    Recognised,
    Role,
    Text,
    UnitState,
)
from qilu_platform.registry import audit_log
from qilu_platform.registry.audit_log import suspended_by_owner
from qilu_platform.registry.endings import end_contract, end_contracts
from qilu_platform.registry.idempotency import Repeatable
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.listing import Filters, get_row, owner_of, page
from qilu_platform.registry.registration import BOOKS, Outcome, register_one
from qilu_platform.registry.suspending import (
    resume_enterprise,
    resume_unit,
    retire_unit,
    suspend_enterprise,
    suspend_unit,
)
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["registry"], responses=PROBLEMS)

_READERS = (Role.OPERATOR, Role.VIEWER, Role.FLEET, Role.ENTERPRISE)
Reader = Annotated[Caller, Depends(allow(*_READERS))]
Owner = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.FLEET, Role.ENTERPRISE))]
Retirer = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.ENTERPRISE))]
Fleet = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.FLEET))]
Operator = Annotated[Caller, Depends(allow(Role.OPERATOR))]
AnId = Annotated[str, Path(pattern=ID_PATTERN)]
ABook = Literal["enterprises", "units", "providers", "contracts", "recognitions", "disbursements"]
Cursor = Annotated[str | None, Query(pattern=ID_PATTERN, description="`next` of the page before.")]
Prefix = Annotated[Text | None, Query(max_length=200, description="How the name begins.")]
RepeatKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="The same request with the same key is done once, and answered alike for 24 hours.",
    ),
]
Limit = Annotated[int, Query(ge=1, le=1000)]


async def _create(
    runtime: Runtime, caller: Caller, book: str, row: dict[str, Any], key: str | None
) -> Response:
    """201 with the new thing, or 200 with the one that was there already, the same."""
    asked = Repeatable(caller, key, book, row)

    def work(connection: Connection) -> tuple[dict[str, Any], int]:
        id_, new = register_one(connection, BOOKS[book], row, confined_to=caller.enterprise)
        if new:
            audit_log.record(connection, caller, "registered", f"{book}/{id_}")
        item = get_row(connection, BOOKS[book].table, id_)
        assert item is not None
        return item, 201 if new else 200

    item, status = await runtime.database.write(lambda connection: asked.run(connection, work))
    return answer(item, status, {"Location": f"/v1/{book}/{item['id']}"})


async def _change(
    runtime: Runtime, caller: Caller, subject: str, action: str, change: Callable[[Connection], bool]
) -> None:
    def work(connection: Connection) -> None:
        if change(connection):
            audit_log.record(connection, caller, action, subject)

    await runtime.database.write(work)


async def _get(runtime: Runtime, caller: Caller, book: str, id_: str) -> Response:
    table = BOOKS[book].table
    item = await runtime.database.read(lambda connection: get_row(connection, table, id_))
    # What a caller may not see does not exist for it.
    if item is None or not caller.sees(owner_of(table, item)):
        raise Problem(404, f"{book.removesuffix('s')} {id_} does not exist.")
    return answer(item)


async def _list(runtime: Runtime, book: str, filters: Filters, cursor: str | None, limit: int) -> Response:
    table = BOOKS[book].table
    return answer(await runtime.database.read(lambda found: page(found, table, filters, cursor, limit)))


_CREATES: dict[int | str, dict[str, Any]] = (
    CONFLICT | TOO_LARGE | {200: {"description": "It was there already, the same."}}
)
_EVENT = {"event": "suspended", "at_ms": 1767225600000, "key": "key-0d1f2a3b4c5d"}
_HISTORY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"unit": "my-motor", "items": [_EVENT]}}}}
}
_Page = dict[int | str, dict[str, Any]]


def _page_of(model: type[BaseModel]) -> _Page:
    """Describes a page in OpenAPI."""
    shape = {
        "type": "object",
        "properties": {
            "items": {"type": "array", "items": model.model_json_schema()},
            "next": {"type": ["string", "null"]},
        },
    }
    return {200: {"description": "A page.", "content": {"application/json": {"schema": shape}}}}


@router.post("/enterprises", status_code=201, response_model=EnterpriseOut, responses=_CREATES)
async def create_enterprise(
    runtime: RuntimeDep, caller: Fleet, body: EnterpriseIn, key: RepeatKey = None
) -> Response:
    return await _create(runtime, caller, "enterprises", body.row(), key)


@router.get("/enterprises/{id}", response_model=EnterpriseOut, responses=NOT_FOUND)
async def get_enterprise(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "enterprises", id)


@router.get("/enterprises", responses=_page_of(EnterpriseOut))
async def list_enterprises(
    runtime: RuntimeDep,
    caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
    city: CityCode | None = None,
    county: CountyCode | None = None,
    industry: IndustryCode | None = None,
    name: Prefix = None,
) -> Response:
    filters = Filters(county=county, city=city, industry=industry, name=name, only=caller.enterprise)
    return await _list(runtime, "enterprises", filters, cursor, limit)


@router.post("/enterprises/{id}/suspend", response_model=EnterpriseOut, responses=NOT_FOUND)
async def suspend_owner(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """Bars it and all of its units from speaking and takes them out of the current counts, until it is
    resumed. Its certificates are on hold meanwhile."""

    def work(connection: Connection) -> bool:
        changed = suspend_enterprise(connection, id)
        if changed:
            touch_rules(connection)
        return changed

    await _change(runtime, caller, f"enterprises/{id}", "suspended", work)
    return await _get(runtime, caller, "enterprises", id)


@router.post("/enterprises/{id}/resume", response_model=EnterpriseOut, responses=NOT_FOUND)
async def resume_owner(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """Undoes a suspension; units that were suspended by themselves stay so."""

    def work(connection: Connection) -> bool:
        changed = resume_enterprise(connection, id)
        if changed:
            touch_rules(connection)
        return changed

    await _change(runtime, caller, f"enterprises/{id}", "resumed", work)
    return await _get(runtime, caller, "enterprises", id)


@router.post("/units", status_code=201, response_model=UnitOut, responses=_CREATES)
async def create_unit(runtime: RuntimeDep, caller: Owner, body: UnitIn, key: RepeatKey = None) -> Response:
    if not caller.sees(body.enterprise):
        raise Problem(403, f"This key registers units of {caller.enterprise} only.")
    if caller.enterprise is not None and body.id is not None and is_reserved(body.id):
        raise Problem(
            403,
            f"id {body.id} has the form of the ids that the platform makes, which this key may not choose: "
            "leave the id out, or choose one that does not begin with six digits and a hyphen.",
        )
    return await _create(runtime, caller, "units", body.row(), key)


@router.get("/units/{id}", response_model=UnitOut, responses=NOT_FOUND)
async def get_unit(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "units", id)


@router.get("/units", responses=_page_of(UnitOut))
async def list_units(
    runtime: RuntimeDep,
    caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
    city: CityCode | None = None,
    county: CountyCode | None = None,
    class_: Annotated[ClassName | None, Query(alias="class")] = None,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    industry: IndustryCode | None = None,
    state: UnitState | None = None,
    name: Prefix = None,
    identifier: Annotated[
        str | None, Query(max_length=160, description="88.<node>.<enterprise>/<unit>")
    ] = None,
) -> Response:
    """In the order of ids. A page may hold less than `limit`, or nothing, before the last one: it looks at
    8,000 units at most for `industry`, `state` and `name`; the last page is the one whose `next` is null."""
    filters = Filters(
        county, city, class_, enterprise, industry=industry, state=state, name=name, only=caller.enterprise
    )
    if identifier is not None:
        filters = _narrowed(filters, identifier)
    return await _list(runtime, "units", filters, cursor, limit)


def _narrowed(filters: Filters, text: str) -> Filters:
    try:
        node, enterprise, unit = parse_identifier(text)
    except ValueError as error:
        raise Problem(422, f"identifier: {error}.") from error
    # What contradicts itself finds nothing.
    node_fits = node in CITIES and filters.city in (None, node)
    enterprise_fits = filters.enterprise in (None, enterprise)
    return replace(
        filters, id=unit if node_fits and enterprise_fits else "", enterprise=enterprise, city=node
    )


@router.get("/units/{id}/history", responses=_HISTORY | NOT_FOUND)
async def get_history(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    """What happened to it, oldest first, with the key that did it where one did."""

    def work(connection: Connection) -> list[dict[str, Any]] | None:
        row = connection.execute(select(units).where(units.c.id == id)).one_or_none()
        if row is None or not caller.sees(row.enterprise):
            return None
        return audit_log.history(connection, row._mapping)

    items = await runtime.database.read(work)
    if items is None:
        raise Problem(404, f"unit {id} does not exist.")
    return answer({"unit": id, "items": items})


@router.post("/units/{id}/suspend", response_model=UnitOut, responses=NOT_FOUND | CONFLICT)
async def suspend(runtime: RuntimeDep, caller: Retirer, id: AnId) -> Response:
    """Takes it out of the current counts and bars it from speaking, until it is resumed. A suspension by an
    operator holds until an operator ends it."""
    await _get(runtime, caller, "units", id)

    def work(connection: Connection) -> bool:
        changed = suspend_unit(connection, id)
        # An operator makes the owner's suspension its own: from then on the owner cannot end it.
        return changed or (caller.enterprise is None and suspended_by_owner(connection, id))

    await _change(runtime, caller, f"units/{id}", "suspended", work)
    return await _get(runtime, caller, "units", id)


@router.post("/units/{id}/resume", response_model=UnitOut, responses=NOT_FOUND | CONFLICT)
async def resume(runtime: RuntimeDep, caller: Retirer, id: AnId) -> Response:
    """Undoes a suspension. A key of an enterprise undoes only what such a key did."""
    await _get(runtime, caller, "units", id)

    def work(connection: Connection) -> bool:
        changed = resume_unit(connection, id)
        if changed and caller.enterprise is not None and not suspended_by_owner(connection, id):
            raise Problem(409, f"unit {id} was suspended by an operator: ask for it to be resumed.")
        return changed

    await _change(runtime, caller, f"units/{id}", "resumed", work)
    return await _get(runtime, caller, "units", id)


@router.post("/units/{id}/retire", response_model=UnitOut, responses=NOT_FOUND)
async def retire(runtime: RuntimeDep, caller: Retirer, id: AnId) -> Response:
    """Takes it out of the current counts, for good; its id is never used again."""
    await _get(runtime, caller, "units", id)
    await _change(runtime, caller, f"units/{id}", "retired", lambda found: retire_unit(found, id))
    return await _get(runtime, caller, "units", id)


@router.post("/providers", status_code=201, response_model=ProviderOut, responses=_CREATES)
async def create_provider(
    runtime: RuntimeDep, caller: Fleet, body: ProviderIn, key: RepeatKey = None
) -> Response:
    return await _create(runtime, caller, "providers", body.row(), key)


@router.get("/providers/{id}", response_model=ProviderOut, responses=NOT_FOUND)
async def get_provider(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "providers", id)


@router.get("/providers", responses=_page_of(ProviderOut))
async def list_providers(
    runtime: RuntimeDep, _caller: Reader, cursor: Cursor = None, limit: Limit = 100
) -> Response:
    return await _list(runtime, "providers", Filters(), cursor, limit)


@router.post("/contracts", status_code=201, response_model=ContractOut, responses=_CREATES)
async def create_contract(
    runtime: RuntimeDep, caller: Fleet, body: ContractIn, key: RepeatKey = None
) -> Response:
    """An enterprise's first contract puts it on cloud."""
    return await _create(runtime, caller, "contracts", body.row(), key)


@router.get("/contracts/{id}", response_model=ContractOut, responses=NOT_FOUND)
async def get_contract(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "contracts", id)


@router.get("/contracts", responses=_page_of(ContractOut))
async def list_contracts(
    runtime: RuntimeDep,
    caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
) -> Response:
    filters = Filters(enterprise=enterprise, only=caller.enterprise)
    return await _list(runtime, "contracts", filters, cursor, limit)


@router.post("/contracts/{id}/end", response_model=ContractOut, responses=NOT_FOUND)
async def end(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """With its last contract an enterprise is no longer currently on cloud; onboarded it stays."""
    await _change(runtime, caller, f"contracts/{id}", "ended", lambda found: end_contract(found, id))
    return await _get(runtime, caller, "contracts", id)


_ENDINGS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"ended": 1, "already": 0, "unknown": []}}}}
}


@router.post("/contracts/end", responses=_ENDINGS)
async def end_many(runtime: RuntimeDep, caller: Operator, body: EndingsIn) -> Response:
    """Ends many at once; `ended`, `already` and the different `unknown` ones add up to those given."""

    def work(connection: Connection) -> dict[str, Any]:
        done = end_contracts(connection, body.contracts)
        if done.ended:
            audit_log.record(connection, caller, "ended", "contracts", ended=done.ended)
        return {"ended": done.ended, "already": done.already, "unknown": done.unknown}

    return answer(await runtime.database.write(work))


@router.post("/centres", status_code=201, response_model=CentreOut, responses=_CREATES)
async def create_centre(
    runtime: RuntimeDep, caller: Operator, body: CentreIn, key: RepeatKey = None
) -> Response:
    return await _create(runtime, caller, "centres", body.row(), key)


@router.get("/centres/{id}", response_model=CentreOut, responses=NOT_FOUND)
async def get_centre(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "centres", id)


@router.get("/centres", responses=_page_of(CentreOut))
async def list_centres(
    runtime: RuntimeDep,
    _caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
    city: CityCode | None = None,
) -> Response:
    return await _list(runtime, "centres", Filters(city=city), cursor, limit)


@router.post("/recognitions", status_code=201, response_model=RecognitionOut, responses=_CREATES)
async def create_recognition(
    runtime: RuntimeDep, caller: Fleet, body: RecognitionIn, key: RepeatKey = None
) -> Response:
    """A platform that is recognised in a higher tier leaves the one it stood in."""
    return await _create(runtime, caller, "recognitions", body.row(), key)


@router.get("/recognitions/{id}", response_model=RecognitionOut, responses=NOT_FOUND)
async def get_recognition(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "recognitions", id)


@router.get("/recognitions", responses=_page_of(RecognitionOut))
async def list_recognitions(
    runtime: RuntimeDep,
    _caller: Reader,
    cursor: Cursor = None,
    limit: Limit = 100,
    kind: Recognised | None = None,
) -> Response:
    return await _list(runtime, "recognitions", Filters(kind=kind), cursor, limit)


@router.post("/disbursements", status_code=201, response_model=DisbursementOut, responses=_CREATES)
async def create_disbursement(
    runtime: RuntimeDep, caller: Fleet, body: DisbursementIn, key: RepeatKey = None
) -> Response:
    """Voucher money of one level, counted in yuan; nothing changes it afterwards."""
    return await _create(runtime, caller, "disbursements", body.row(), key)


@router.get("/disbursements/{id}", response_model=DisbursementOut, responses=NOT_FOUND)
async def get_disbursement(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "disbursements", id)


@router.get("/disbursements", responses=_page_of(DisbursementOut))
async def list_disbursements(
    runtime: RuntimeDep, _caller: Reader, cursor: Cursor = None, limit: Limit = 100
) -> Response:
    return await _list(runtime, "disbursements", Filters(), cursor, limit)


_LINE = '{"id": "370202-e00007", "name": "Qingdao Iron and Steel", "county": "370202", "industry": "C31"}\n'
_LINES = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": _LINE}},
    }
}


@router.post("/{book}/bulk", response_model=BulkOut, responses=TOO_LARGE, openapi_extra=_LINES)
async def create_many(runtime: RuntimeDep, caller: Fleet, book: ABook, request: Request) -> Response:
    """One object a line, as in the single create, with `id`. The good lines are registered whatever the
    others are; at most 20,000 lines and 8 MiB."""
    body = await request.body()
    if body.strip().count(b"\n") >= MAX_LINES:
        raise Problem(413, f"More than {MAX_LINES} lines: send them in several calls.")

    def work(connection: Connection) -> Outcome:
        outcome = register_lines(connection, book, body)
        if outcome.created:
            audit_log.record(connection, caller, "registered", book, created=len(outcome.created))
        return outcome

    outcome = await runtime.database.write(work)
    errors = sorted((error.line, error.detail) for error in outcome.errors)
    return answer(
        {
            "created": len(outcome.created),
            "existing": outcome.existing,
            "errors": [{"line": line, "detail": detail} for line, detail in errors],
        }
    )
