"""Questions of RabbitMQ's HTTP authorization backend. Each answer is `allow` or `deny`.

RabbitMQ calls these without a key. They reveal whether a certificate or a device's password is valid, as a
connection to the broker would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response
from qilu_common.mosquitto_password import is_password

from qilu_platform.api.common import RuntimeDep
from qilu_platform.api.problems import Problem
from qilu_platform.broker import device_passwords, rabbitmq
from qilu_platform.broker.device_passwords import Login
from qilu_platform.broker.rabbitmq import Holder
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1/rabbitmq", include_in_schema=False)
_CERTIFICATE = "none"
"""RabbitMQ's word for the password of a client that logs in with a certificate."""


async def _question(runtime: RuntimeDep, request: Request) -> dict[str, str]:
    """The form. Raises Problem where the platform has no RabbitMQ."""
    if not runtime.settings.rabbitmq:
        raise Problem(404, "This platform decides for no RabbitMQ: set QILU_PLATFORM_RABBITMQ.")
    return dict(parse_qsl((await request.body()).decode("utf-8", "replace")))


Question = Annotated[dict[str, str], Depends(_question)]


async def _client(runtime: Runtime, question: Mapping[str, str]) -> Holder | Login | None:
    """The holder of a valid certificate, or a device that has a password, that connects under its own client
    id. The virtual host tells which of the two: each has its own."""
    username, host = question.get("username", ""), question.get("vhost")
    found: Holder | Login | None = None
    if host == rabbitmq.CERTIFICATES:
        found = await runtime.database.read(lambda db: rabbitmq.holder(db, runtime.authority, username))
    elif host == rabbitmq.DEVICES:
        found = await runtime.database.read(lambda db: device_passwords.login(db, username))
    good = found is not None and question.get("client_id") == rabbitmq.client_id(found)
    return found if good else None


def _answer(allowed: bool) -> Response:
    return Response("allow" if allowed else "deny", media_type="text/plain")


@router.post("/user")
async def may_log_in(runtime: RuntimeDep, question: Question) -> Response:
    found, password = await _client(runtime, question), question.get("password", "")
    if isinstance(found, Login):
        return _answer(is_password(password, found.hash))
    return _answer(found is not None and password == _CERTIFICATE)


@router.post("/vhost")
async def may_enter(runtime: RuntimeDep, question: Question) -> Response:
    return _answer(await _client(runtime, question) is not None)


@router.post("/resource")
async def may_use(runtime: RuntimeDep, question: Question) -> Response:
    found = await _client(runtime, question)
    resource, name = question.get("resource", ""), question.get("name", "")
    return _answer(found is not None and rabbitmq.may_use(found, resource, name))


@router.post("/topic")
async def may_speak(runtime: RuntimeDep, question: Question) -> Response:
    found = await _client(runtime, question | {"client_id": question.get("variable_map.client_id", "")})
    permission, key = question.get("permission", ""), question.get("routing_key", "")
    return _answer(found is not None and rabbitmq.may_speak(found, permission, key))
