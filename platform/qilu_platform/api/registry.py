"""Enterprises, units, providers, contracts, centres."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel
from qilu_contract.ids import ID_PATTERN
from sqlalchemy import Connection

from qilu_platform.api.common import PROBLEMS, RuntimeDep, allow, answer
from qilu_platform.bulk import MAX_LINES, register_lines
from qilu_platform.keys import Caller
from qilu_platform.listing import Filters, get_row, owner_of, page
from qilu_platform.models import (
    BulkOut,
    CentreIn,
    CentreOut,
    CityCode,
    ClassName,
    ContractIn,
    ContractOut,
    CountyCode,
    EnterpriseIn,
    EnterpriseOut,
    IndustryCode,
    ProviderIn,
    ProviderOut,
    Role,
    UnitIn,
    UnitOut,
    UnitState,
)
from qilu_platform.onboarding import end_contract, retire_unit
from qilu_platform.problems import Problem
from qilu_platform.registration import BOOKS, register_one
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1", tags=["registry"], responses=PROBLEMS)

_READERS = (Role.OPERATOR, Role.VIEWER, Role.FLEET, Role.ENTERPRISE)
Reader = Annotated[Caller, Depends(allow(*_READERS))]
Owner = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.FLEET, Role.ENTERPRISE))]
Retirer = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.ENTERPRISE))]
Fleet = Annotated[Caller, Depends(allow(Role.OPERATOR, Role.FLEET))]
Operator = Annotated[Caller, Depends(allow(Role.OPERATOR))]
AnId = Annotated[str, Path(pattern=ID_PATTERN)]
ABook = Literal["enterprises", "units", "providers", "contracts"]
Cursor = Annotated[str | None, Query(pattern=ID_PATTERN, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]


async def _create(runtime: Runtime, book: str, row: dict[str, Any]) -> Response:
    """201 with the new thing, or 200 with the one that was there already, the same."""

    def work(connection: Connection) -> tuple[dict[str, Any] | None, bool]:
        id_, new = register_one(connection, BOOKS[book], row)
        return get_row(connection, BOOKS[book].table, id_), new

    item, new = await runtime.database.write(work)
    assert item is not None
    return answer(item, 201 if new else 200, {"Location": f"/v1/{book}/{item['id']}"})


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


@router.post("/enterprises", status_code=201, response_model=EnterpriseOut)
async def create_enterprise(runtime: RuntimeDep, _caller: Fleet, body: EnterpriseIn) -> Response:
    return await _create(runtime, "enterprises", body.row())


@router.get("/enterprises/{id}", response_model=EnterpriseOut)
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
) -> Response:
    filters = Filters(county=county, city=city, industry=industry, only=caller.enterprise)
    return await _list(runtime, "enterprises", filters, cursor, limit)


@router.post("/units", status_code=201, response_model=UnitOut)
async def create_unit(runtime: RuntimeDep, caller: Owner, body: UnitIn) -> Response:
    if not caller.sees(body.enterprise):
        raise Problem(403, f"This key registers units of {caller.enterprise} only.")
    return await _create(runtime, "units", body.row())


@router.get("/units/{id}", response_model=UnitOut)
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
    state: UnitState | None = None,
) -> Response:
    filters = Filters(county, city, class_, enterprise, state=state, only=caller.enterprise)
    return await _list(runtime, "units", filters, cursor, limit)


@router.post("/units/{id}/retire", response_model=UnitOut)
async def retire(runtime: RuntimeDep, caller: Retirer, id: AnId) -> Response:
    """Takes it out of the current counts, for good; its id is never used again."""
    await _get(runtime, caller, "units", id)
    await runtime.database.write(lambda connection: retire_unit(connection, id))
    return await _get(runtime, caller, "units", id)


@router.post("/providers", status_code=201, response_model=ProviderOut)
async def create_provider(runtime: RuntimeDep, _caller: Fleet, body: ProviderIn) -> Response:
    return await _create(runtime, "providers", body.row())


@router.get("/providers/{id}", response_model=ProviderOut)
async def get_provider(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    return await _get(runtime, caller, "providers", id)


@router.get("/providers", responses=_page_of(ProviderOut))
async def list_providers(
    runtime: RuntimeDep, _caller: Reader, cursor: Cursor = None, limit: Limit = 100
) -> Response:
    return await _list(runtime, "providers", Filters(), cursor, limit)


@router.post("/contracts", status_code=201, response_model=ContractOut)
async def create_contract(runtime: RuntimeDep, _caller: Fleet, body: ContractIn) -> Response:
    """An enterprise's first contract puts it on cloud."""
    return await _create(runtime, "contracts", body.row())


@router.get("/contracts/{id}", response_model=ContractOut)
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


@router.post("/contracts/{id}/end", response_model=ContractOut)
async def end(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """With its last contract an enterprise is no longer currently on cloud; onboarded it stays."""
    await runtime.database.write(lambda connection: end_contract(connection, id))
    return await _get(runtime, caller, "contracts", id)


@router.post("/centres", status_code=201, response_model=CentreOut)
async def create_centre(runtime: RuntimeDep, _caller: Operator, body: CentreIn) -> Response:
    return await _create(runtime, "centres", body.row())


@router.get("/centres/{id}", response_model=CentreOut)
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


_LINE = '{"id": "370202-e00007", "name": "Qingdao Iron", "county": "370202", "industry": "C31"}\n'
_LINES = {
    "requestBody": {
        "required": True,
        "content": {"application/x-ndjson": {"schema": {"type": "string"}, "example": _LINE}},
    }
}


@router.post("/{book}/bulk", response_model=BulkOut, openapi_extra=_LINES)
async def create_many(runtime: RuntimeDep, _caller: Fleet, book: ABook, request: Request) -> Response:
    """One object a line, as in the single create, with `id`. The good lines are registered whatever the
    others are; at most 20,000 lines and 8 MiB."""
    body = await request.body()
    if body.strip().count(b"\n") >= MAX_LINES:
        raise Problem(413, f"More than {MAX_LINES} lines: send them in several calls.")
    outcome = await runtime.database.write(lambda connection: register_lines(connection, book, body))
    errors = sorted((error.line, error.detail) for error in outcome.errors)
    return answer(
        {
            "created": len(outcome.created),
            "existing": outcome.existing,
            "errors": [{"line": line, "detail": detail} for line, detail in errors],
        }
    )
