"""Resolution of industrial-internet identifiers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field
from qilu_contract.wire.identity import parse_identifier

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, Reader, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.assets.nameplate import links, unit_and_nameplate
from qilu_platform.errors import NotFound
from qilu_platform.models.answers import UnitOut

router = APIRouter(prefix="/v1/resolve", tags=["registry"], responses=PROBLEMS | NOT_FOUND)


class NameplateOut(BaseModel):
    identifier: str
    serial_number: str = Field(description="The unit's id.")
    designation: str = Field(description="Of its class.")
    designation_zh: str
    enterprise: str
    enterprise_name: str
    uscc: str | None
    industry: str
    county: str
    city: str


class ResolvedOut(BaseModel):
    unit: UnitOut
    nameplate: NameplateOut
    links: dict[str, str] = Field(description="Addresses on this platform, by what they lead to.")


@router.get("/{prefix}/{unit}", response_model=ResolvedOut)
async def resolve(
    runtime: RuntimeDep,
    caller: Reader,
    prefix: Annotated[str, Path(description="88.<node>.<enterprise>", max_length=160)],
    unit: Annotated[str, Path(max_length=160)],
) -> Response:
    """Resolve an industrial-internet identifier (`88.<node>.<enterprise>/<unit>`) to its unit, its nameplate
    and the addresses of its data. A key of an enterprise resolves its own units."""
    identifier = f"{prefix}/{unit}"
    try:
        parts = parse_identifier(identifier)
    except ValueError as error:
        raise Problem(422, f"identifier: {error}.") from error
    found = await runtime.database.read(lambda connection: unit_and_nameplate(connection, parts.unit))
    if found is None or found[0]["identifier"] != identifier or not caller.sees(found[0]["enterprise"]):
        raise NotFound(f"identifier {identifier} does not exist.")
    return answer({"unit": found[0], "nameplate": found[1], "links": links(found[0])})
