"""Questions of RabbitMQ's HTTP authorization backend. Each answer is `allow` or `deny`.

RabbitMQ calls these without a key. They reveal whether a certificate is valid, as a connection to the broker
would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response

from qilu_platform.api.common import RuntimeDep
from qilu_platform.api.problems import Problem
from qilu_platform.broker import rabbitmq
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


async def _holder(runtime: Runtime, question: Mapping[str, str]) -> Holder | None:
    """The holder of a valid certificate that connects under its own client id."""
    username = question.get("username", "")
    found = await runtime.database.read(lambda connection: rabbitmq.holder(connection, username))
    return found if found is not None and question.get("client_id") == found.enterprise else None


def _answer(allowed: bool) -> Response:
    return Response("allow" if allowed else "deny", media_type="text/plain")


@router.post("/user")
async def may_log_in(runtime: RuntimeDep, question: Question) -> Response:
    certificate = question.get("password") == _CERTIFICATE
    return _answer(certificate and await _holder(runtime, question) is not None)


@router.post("/vhost")
async def may_enter(runtime: RuntimeDep, question: Question) -> Response:
    return _answer(await _holder(runtime, question) is not None)


@router.post("/resource")
async def may_use(runtime: RuntimeDep, question: Question) -> Response:
    found = await _holder(runtime, question)
    resource, name = question.get("resource", ""), question.get("name", "")
    return _answer(found is not None and rabbitmq.may_use(found, resource, name))


@router.post("/topic")
async def may_speak(runtime: RuntimeDep, question: Question) -> Response:
    found = await _holder(runtime, question | {"client_id": question.get("variable_map.client_id", "")})
    permission, key = question.get("permission", ""), question.get("routing_key", "")
    return _answer(found is not None and rabbitmq.may_speak(found, permission, key))
