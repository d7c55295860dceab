"""Webhook routes: where alarms are notified, and what became of the notifications."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, Operator, RuntimeDep, answer
from qilu_platform.api.problems import Problem

router = APIRouter(prefix="/v1/webhooks", tags=["alarms"], responses=PROBLEMS)


class DeliveryOut(BaseModel):
    id: str = Field(description="The header `Qilu-Delivery` of all its attempts.")
    target: str | None = Field(description="The URL without its secrets; null: it is configured no more.")
    event: Literal["alarm.opened", "alarm.cleared", "test"]
    unit: str | None
    signal: str | None
    since_ms: int | None
    at_ms: int
    state: Literal["waiting", "delivered", "failed"]
    attempts: int
    answer: str | None = Field(description="Of the last attempt: an HTTP status, or what went wrong.")


class WebhooksOut(BaseModel):
    urls: list[str] = Field(description="Without log-in, query and most of the path.")
    dropped: int = Field(description="Notifications that found the queue full, since the platform started.")
    items: list[DeliveryOut] = Field(description="The newest first.")


@router.get("", response_model=WebhooksOut)
async def list_webhooks(
    runtime: RuntimeDep, _caller: Operator, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """Where the platform notifies of alarms, and the latest notifications."""
    hooks = runtime.webhooks
    if hooks is None:
        return answer({"urls": [], "dropped": 0, "items": []})
    items = await runtime.database.read(lambda connection: hooks.newest(connection, limit))
    return answer({"urls": hooks.urls(), "dropped": hooks.dropped, "items": items})


@router.post("/test", status_code=204, response_model=None, responses=NOT_FOUND)
async def send_test_event(runtime: RuntimeDep, _caller: Operator) -> Response:
    """Sends an event `test` to every URL. 404 where none is configured."""
    if runtime.webhooks is None:
        raise Problem(404, "No webhooks are configured: set QILU_PLATFORM_WEBHOOKS and QILU_WEBHOOK_SECRET.")
    await runtime.webhooks.test()
    return Response(status_code=204)
