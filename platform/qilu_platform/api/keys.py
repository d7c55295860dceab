"""Routes for API keys and the audit log (role `admin`)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from qilu_platform.api.common import CONFLICT, NOT_FOUND, PROBLEMS, Admin, Anybody, RuntimeDep, answer
from qilu_platform.models.bodies import KeyIn, RotationIn
from qilu_platform.models.fields import MAX_INTEGER, Role, Text
from qilu_platform.models.reports import AuditPage, KeysOut, NewKeyOut, WhoamiOut
from qilu_platform.registry import audit_log, keys

router = APIRouter(prefix="/v1", tags=["keys"], responses=PROBLEMS)


_SECRET = {"Cache-Control": "no-store"}


@router.get("/whoami", response_model=WhoamiOut)
async def whoami(runtime: RuntimeDep, caller: Anybody) -> Response:
    """The key of this request, and its rights."""
    name = await runtime.database.read(lambda connection: keys.name_of(connection, caller.key))
    return answer({"key": caller.key, "name": name, "role": caller.role, "enterprise": caller.enterprise})


@router.post("/keys", status_code=201, response_model=NewKeyOut)
async def create_key(runtime: RuntimeDep, caller: Admin, body: KeyIn) -> Response:
    """The key is shown here and never again."""

    def work(connection: Connection) -> tuple[str, str]:
        id_, key = keys.make_key(connection, body.name, Role(body.role), body.enterprise)
        audit_log.record(connection, caller, "created", f"keys/{id_}", role=body.role)
        return id_, key

    id_, key = await runtime.database.write(work)
    return answer({"id": id_, "key": key}, 201, _SECRET)


@router.get("/keys", response_model=KeysOut)
async def list_keys(runtime: RuntimeDep, _caller: Admin) -> Response:
    return answer({"items": await runtime.database.read(keys.list_keys)})


@router.post("/keys/{id}/rotate", status_code=201, response_model=NewKeyOut, responses=NOT_FOUND | CONFLICT)
async def rotate_key(runtime: RuntimeDep, caller: Admin, id: str, body: RotationIn | None = None) -> Response:
    """A new key takes its place; the old one ends at once, or after `grace_s`."""
    grace_s = 0 if body is None else body.grace_s

    def work(connection: Connection) -> tuple[str, str]:
        made, key = keys.rotate_key(connection, id, grace_s)
        audit_log.record(connection, caller, "rotated", f"keys/{id}", by=made, grace_s=grace_s)
        return made, key

    made, key = await runtime.database.write(work)
    return answer({"id": made, "key": key}, 201, _SECRET)


@router.delete("/keys/{id}", status_code=204, responses=NOT_FOUND | CONFLICT)
async def revoke_key(runtime: RuntimeDep, caller: Admin, id: str) -> Response:
    """Ends it at once. The last admin key cannot be ended."""

    def work(connection: Connection) -> None:
        keys.revoke_key(connection, id)
        audit_log.record(connection, caller, "revoked", f"keys/{id}")

    await runtime.database.write(work)
    return Response(status_code=204)


@router.get("/audit", response_model=AuditPage)
async def list_audit(
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
