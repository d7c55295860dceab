"""Routes for signing in with a browser."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection

from qilu_platform.api.common import PROBLEMS, Anybody, RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.models.fields import Role
from qilu_platform.registry import sessions
from qilu_platform.registry.sessions import COOKIE, SESSION_MS, Session

router = APIRouter(prefix="/v1/session", tags=["session"], responses=PROBLEMS)


class SignIn(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"key": "qilu_…"}]})

    key: Annotated[str, Field(max_length=256)] | None = Field(None, description="A key of the platform.")
    link: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="One-time code from POST /v1/session/links, valid for one session."
    )

    @model_validator(mode="after")
    def _one(self) -> SignIn:
        if (self.key is None) == (self.link is None):
            raise ValueError("give a key or a link")
        return self


class SessionOut(BaseModel):
    """Model for the API description."""

    signed_in: bool
    role: Role | None
    enterprise: str | None
    ends_ms: int | None


class LinkOut(BaseModel):
    link: str = Field(description="Open the console at `#/enter/<link>`; it works once.")
    ends_ms: int


@router.get("", response_model=SessionOut)
async def get_session(runtime: RuntimeDep, request: Request) -> Response:
    """The session of this browser. Public."""
    cookie = request.cookies.get(COOKIE, "")
    found = await runtime.database.read(lambda connection: sessions.find(connection, cookie))
    return answer(_shown(found), headers={"Cache-Control": "no-store"})


@router.post("", response_model=SessionOut)
async def sign_in(runtime: RuntimeDep, request: Request, body: SignIn) -> Response:
    """Opens a session with the rights of a key; the browser holds it as a cookie that no script can read."""

    def work(connection: Connection) -> tuple[str, Session]:
        if body.link is not None:
            opened = sessions.open_by_link(connection, body.link)
            why = "This link was opened already, or it is too old: ask for a new one."
        else:
            opened = sessions.open_by_key(connection, body.key or "")
            why = "The key is not known, or it was revoked."
        found = None if opened is None else sessions.find(connection, opened.secret)
        if opened is None or found is None:
            raise Problem(401, why)
        return opened.secret, found

    secret, found = await runtime.database.write(work)
    response = answer(_shown(found), headers={"Cache-Control": "no-store"})
    response.set_cookie(COOKIE, secret, max_age=SESSION_MS // 1000, **_cookie(request))
    return response


@router.delete("", status_code=204)
async def sign_out(runtime: RuntimeDep, request: Request) -> Response:
    cookie = request.cookies.get(COOKIE)
    if cookie:
        await runtime.database.write(lambda connection: sessions.close(connection, cookie))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, **_cookie(request))
    return response


@router.post("/links", status_code=201, response_model=LinkOut)
async def make_link(runtime: RuntimeDep, caller: Anybody) -> Response:
    """A link that opens one session with the rights of the key that asks, within half an hour."""
    opened = await runtime.database.write(lambda connection: sessions.make_link(connection, caller))
    return answer({"link": opened.secret, "ends_ms": opened.ends_ms}, 201, {"Cache-Control": "no-store"})


def _shown(found: Session | None) -> dict[str, Any]:
    caller = None if found is None else found.caller
    return {
        "signed_in": caller is not None,
        "role": None if caller is None else caller.role,
        "enterprise": None if caller is None else caller.enterprise,
        "ends_ms": None if found is None else found.ends_ms,
    }


def _cookie(request: Request) -> dict[str, Any]:
    secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
    path = request.scope.get("root_path") or "/"
    return {"httponly": True, "samesite": "strict", "secure": secure, "path": path}
