"""Routes for enterprises, units, providers, contracts, centres, recognitions and disbursements: singly, in
pages, in bulk."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from qilu_contract.catalogue.places import CITIES
from qilu_contract.wire.identity import parse_identifier
from qilu_contract.wire.ids import ID_PATTERN, is_reserved
from sqlalchemy import Connection

from qilu_platform.api.common import PROBLEMS, TOO_LARGE, Fleet, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.api.resources import Resource, add_routes
from qilu_platform.errors import Invalid
from qilu_platform.imports.loading import register_lines
from qilu_platform.imports.splitting import check_kind
from qilu_platform.models.answers import (
    BulkOut,
    CentreOut,
    CentrePage,
    ContractOut,
    ContractPage,
    DisbursementOut,
    DisbursementPage,
    EnterpriseOut,
    EnterprisePage,
    ProviderOut,
    ProviderPage,
    RecognitionOut,
    RecognitionPage,
    UnitOut,
    UnitPage,
)
from qilu_platform.models.bodies import (
    CentreIn,
    ContractIn,
    DisbursementIn,
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
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.listing import Filters
from qilu_platform.registry.registration import Outcome

router = APIRouter(prefix="/v1", tags=["registry"], responses=PROBLEMS)

ABook = Literal["enterprises", "units", "providers", "contracts", "recognitions", "disbursements"]
Prefix = Annotated[Text | None, Query(max_length=200, description="How the name begins.")]
AnEnterprise = Annotated[str | None, Query(pattern=ID_PATTERN)]
Exactly = Annotated[str | None, Query(pattern=ID_PATTERN, description="Only the one with this id.")]

MAX_LINES = 20_000
"""Of one call in bulk."""


def _enterprises(
    city: CityCode | None = None,
    county: CountyCode | None = None,
    industry: IndustryCode | None = None,
    name: Prefix = None,
    id: Exactly = None,
) -> Filters:
    return Filters(county=county, city=city, industry=industry, name=name, id=id)


def _units(
    city: CityCode | None = None,
    county: CountyCode | None = None,
    class_: Annotated[ClassName | None, Query(alias="class")] = None,
    enterprise: AnEnterprise = None,
    industry: IndustryCode | None = None,
    state: UnitState | None = None,
    name: Prefix = None,
    identifier: Annotated[
        str | None, Query(max_length=160, description="88.<node>.<enterprise>/<unit>")
    ] = None,
    id: Exactly = None,
) -> Filters:
    filters = Filters(county, city, class_, enterprise, industry=industry, state=state, name=name, id=id)
    return filters if identifier is None else _narrowed(filters, identifier)


def _narrowed(filters: Filters, text: str) -> Filters:
    try:
        node, enterprise, unit = parse_identifier(text)
    except ValueError as error:
        raise Invalid(f"identifier: {error}.") from error
    # Contradictory filters match nothing.
    node_fits = node in CITIES and filters.city in (None, node)
    enterprise_fits = filters.enterprise in (None, enterprise) and filters.id in (None, unit)
    return replace(
        filters, id=unit if node_fits and enterprise_fits else "", enterprise=enterprise, city=node
    )


def _contracts(enterprise: AnEnterprise = None) -> Filters:
    return Filters(enterprise=enterprise)


def _centres(city: CityCode | None = None) -> Filters:
    return Filters(city=city)


def _recognitions(kind: Recognised | None = None) -> Filters:
    return Filters(kind=kind)


def _no_filters() -> Filters:
    return Filters()


def _check_unit(caller: Caller, body: UnitIn) -> None:
    """A key of an enterprise registers its own units, under ids that do not have the platform's form."""
    if not caller.sees(body.enterprise):
        raise Problem(403, f"This key registers units of {caller.enterprise} only.")
    if caller.enterprise is not None and body.id is not None and is_reserved(body.id):
        raise Problem(
            403,
            f"id {body.id} has the form of the ids that the platform makes, which this key may not choose: "
            "leave the id out, or choose one that does not begin with six digits and a hyphen.",
        )


_BY_FLEETS = (Role.OPERATOR, Role.FLEET)
_OWNERS = (Role.OPERATOR, Role.ENTERPRISE)
RESOURCES = (
    Resource(
        book="enterprises",
        body=EnterpriseIn,
        shown=EnterpriseOut,
        page=EnterprisePage,
        writers=_BY_FLEETS,
        renamers=_OWNERS,
        filters=_enterprises,
    ),
    Resource(
        book="units",
        body=UnitIn,
        shown=UnitOut,
        page=UnitPage,
        writers=(*_BY_FLEETS, Role.ENTERPRISE),
        renamers=_OWNERS,
        filters=_units,
        check=_check_unit,
        listed="In the order of ids. A page may hold less than `limit`, or nothing, before the last one: it "
        "looks at 8,000 units at most for `industry`, `state` and `name`; the last page is the one whose "
        "`next` is null.",
    ),
    Resource(
        book="providers",
        body=ProviderIn,
        shown=ProviderOut,
        page=ProviderPage,
        writers=_BY_FLEETS,
        renamers=(Role.OPERATOR,),
        filters=_no_filters,
    ),
    Resource(
        book="contracts",
        body=ContractIn,
        shown=ContractOut,
        page=ContractPage,
        writers=_BY_FLEETS,
        filters=_contracts,
        created="An enterprise's first contract puts it on cloud.",
    ),
    Resource(
        book="centres",
        body=CentreIn,
        shown=CentreOut,
        page=CentrePage,
        writers=(Role.OPERATOR,),
        renamers=(Role.OPERATOR,),
        filters=_centres,
    ),
    Resource(
        book="recognitions",
        body=RecognitionIn,
        shown=RecognitionOut,
        page=RecognitionPage,
        writers=_BY_FLEETS,
        filters=_recognitions,
        created="A platform that is recognised in a higher tier leaves its previous tier.",
    ),
    Resource(
        book="disbursements",
        body=DisbursementIn,
        shown=DisbursementOut,
        page=DisbursementPage,
        writers=_BY_FLEETS,
        filters=_no_filters,
        created="Voucher money of one level, counted in yuan; nothing changes it afterwards.",
    ),
)
for each in RESOURCES:
    add_routes(router, each)


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
    check_kind(body)
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
