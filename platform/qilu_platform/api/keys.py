"""API keys and the audit log, for the admin."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy import Connection

from qilu_platform.api.common import CONFLICT, NOT_FOUND, PROBLEMS, Responses, RuntimeDep, allow, answer
from qilu_platform.models.bodies import KeyIn, RotationIn
from qilu_platform.models.fields import MAX_INTEGER, Role, Text
from qilu_platform.registry import audit_log
from qilu_platform.registry.keys import Caller, list_keys, make_key, revoke_key, rotate_key

router = APIRouter(prefix="/v1", tags=["keys"], responses=PROBLEMS)

Admin = Annotated[Caller, Depends(allow())]

_SECRET = {"Cache-Control": "no-store"}
_MADE: Responses = {
    201: {"content": {"application/json": {"example": {"id": "key-0d1f2a3b4c5d", "key": "qilu_…"}}}}
}


@router.post("/keys", status_code=201, responses=_MADE)
async def create_key(runtime: RuntimeDep, caller: Admin, body: KeyIn) -> Response:
    """The key is shown here and never again."""

    def work(connection: Connection) -> tuple[str, str]:
        id_, key = make_key(connection, body.name, Role(body.role), body.enterprise)
        audit_log.record(connection, caller, "created", f"keys/{id_}", role=body.role)
        return id_, key

    id_, key = await runtime.database.write(work)
    return answer({"id": id_, "key": key}, 201, _SECRET)


@router.get("/keys")
async def get_keys(runtime: RuntimeDep, _caller: Admin) -> Response:
    return answer({"items": await runtime.database.read(list_keys)})


@router.post("/keys/{id}/rotate", status_code=201, responses=_MADE | NOT_FOUND | CONFLICT)
async def rotate(runtime: RuntimeDep, caller: Admin, id: str, body: RotationIn | None = None) -> Response:
    """A new key takes its place; the old one ends at once, or after `grace_s`."""
    grace_s = 0 if body is None else body.grace_s

    def work(connection: Connection) -> tuple[str, str]:
        made, key = rotate_key(connection, id, grace_s)
        audit_log.record(connection, caller, "rotated", f"keys/{id}", by=made, grace_s=grace_s)
        return made, key

    made, key = await runtime.database.write(work)
    return answer({"id": made, "key": key}, 201, _SECRET)


@router.delete("/keys/{id}", status_code=204, responses=NOT_FOUND | CONFLICT)
async def delete_key(runtime: RuntimeDep, caller: Admin, id: str) -> Response:
    """Ends it at once. The last admin key cannot be ended."""

    def work(connection: Connection) -> None:
        revoke_key(connection, id)
        audit_log.record(connection, caller, "revoked", f"keys/{id}")

    await runtime.database.write(work)
    return Response(status_code=204)


@router.get("/audit")
async def get_audit(
    runtime: RuntimeDep,
    _caller: Admin,
    cursor: Annotated[
        int | None, Query(ge=0, le=MAX_INTEGER, description="`next` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    subject: Annotated[Text | None, Query(max_length=64, description="Such as units/<id>.")] = None,
    key: Annotated[Text | None, Query(max_length=32, description="The id of the key that did it.")] = None,
) -> Response:
    """Every change, the newest first: who (the key's id), what, when."""
    return answer(
        await runtime.database.read(lambda found: audit_log.latest(found, cursor, limit, subject, key))
    )
