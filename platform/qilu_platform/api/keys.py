"""API keys, for the admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from qilu_platform.api.common import PROBLEMS, RuntimeDep, allow, answer
from qilu_platform.keys import Caller, list_keys, make_key, revoke_key
from qilu_platform.models import KeyIn, Role

router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=PROBLEMS)

Admin = Annotated[Caller, Depends(allow())]


@router.post(
    "",
    status_code=201,
    responses={
        201: {"content": {"application/json": {"example": {"id": "key-0d1f2a3b4c5d", "key": "qilu_…"}}}}
    },
)
async def create_key(runtime: RuntimeDep, _caller: Admin, body: KeyIn) -> Response:
    """The key is shown here and never again."""
    id_, key = await runtime.database.write(
        lambda connection: make_key(connection, body.name, Role(body.role), body.enterprise)
    )
    return answer({"id": id_, "key": key}, 201, {"Cache-Control": "no-store"})


@router.get("")
async def get_keys(runtime: RuntimeDep, _caller: Admin) -> Response:
    return answer({"items": await runtime.database.read(list_keys)})


@router.delete("/{id}", status_code=204)
async def delete_key(runtime: RuntimeDep, _caller: Admin, id: str) -> Response:
    """Ends it at once. The last admin key cannot be ended."""
    await runtime.database.write(lambda connection: revoke_key(connection, id))
    return Response(status_code=204)
