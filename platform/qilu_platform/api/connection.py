"""Connection settings for devices."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from qilu_common.broker import BrokerAddress

from qilu_platform.api.common import PROBLEMS, Anybody, RuntimeDep, answer

router = APIRouter(prefix="/v1", tags=["session"], responses=PROBLEMS)


class ListenerOut(BaseModel):
    host: str
    port: int


def listener(address: str) -> dict[str, Any]:
    """`host:port` as a ListenerOut."""
    host, _, port = address.rpartition(":")
    return {"host": host, "port": int(port)}


class ConnectionOut(BaseModel):
    plain: ListenerOut | None = Field(description="With a user name and a password, as the platform does.")
    tls: ListenerOut | None = Field(description="With an enterprise's certificate.")
    password: ListenerOut | None = Field(
        description="With TLS and the user name and password of a device; null where devices get none."
    )
    ca: str | None = Field(description="The authority's certificate, in PEM, by which both are known.")


@router.get("/connection", response_model=ConnectionOut)
async def get_connection(runtime: RuntimeDep, _caller: Anybody) -> Response:
    """The broker's listeners, as far as the platform knows them."""
    settings = runtime.settings
    plain: dict[str, Any] | None = None
    if settings.broker is not None:
        address = BrokerAddress.from_url(settings.broker)
        plain = {"host": address.host, "port": address.port}
    tls = None if settings.broker_for_nodes is None else listener(settings.broker_for_nodes)
    password = None if settings.broker_for_devices is None else listener(settings.broker_for_devices)
    ca = runtime.authority.pem.decode() if tls or password else None
    return answer({"plain": plain, "tls": tls, "password": password, "ca": ca})
