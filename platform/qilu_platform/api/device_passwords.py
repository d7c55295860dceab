"""Passwords of devices: how one unit signs in at the broker, without a certificate."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from qilu_platform.api.common import CONFLICT, NOT_FOUND, PROBLEMS, AnId, Owner, Reader, RuntimeDep, answer
from qilu_platform.api.connection import ListenerOut, listener
from qilu_platform.api.problems import Problem
from qilu_platform.api.readings import unit_of
from qilu_platform.broker import device_passwords
from qilu_platform.registry import audit_log

router = APIRouter(prefix="/v1/units", tags=["certificates"], responses=PROBLEMS | NOT_FOUND)


_SHOWN: dict[str, Any] = {
    "username": "device.my-motor",
    "issued_ms": 1767225600000,
    "issued_by": "key-0123456789ab",
}
_AT: dict[str, Any] = {"host": "127.0.0.1", "port": 8884}


class DevicePasswordOut(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_SHOWN]})

    username: str = Field(description="The client id is the same, whatever the device gives.")
    issued_ms: int | None = Field(description="Null: the unit has no password.")
    issued_by: str | None = Field(description="The id of a key.")


class NewDevicePasswordOut(DevicePasswordOut):
    model_config = ConfigDict(json_schema_extra={"examples": [_SHOWN | {"password": "…", "listener": _AT}]})

    password: str = Field(description="Shown once: the platform keeps a hash.")
    listener: ListenerOut


@router.post("/{id}/password", status_code=201, response_model=NewDevicePasswordOut, responses=CONFLICT)
async def issue_device_password(runtime: RuntimeDep, caller: Owner, id: AnId) -> Response:
    """Makes a user name and a password with which this unit signs in at the broker and publishes its own
    readings, nothing else. A password that it had before ends. 409 where the broker takes none."""
    await unit_of(runtime, caller, id)
    at = runtime.settings.broker_for_devices
    if at is None:
        raise Problem(
            409,
            "The built-in broker reads its users when it starts, so no device gets its own password: "
            "install Mosquitto 2.0.21 or newer and start the stack again. On this machine the log-in in the "
            "stack's `env` file works for every device.",
        )

    def work(connection: Connection) -> dict[str, Any]:
        password = device_passwords.issue(connection, id, caller.key)
        audit_log.record(connection, caller, "issued", f"units/{id}", what="password")
        found = device_passwords.get(connection, id)
        assert found is not None
        return found | {"password": password}

    made = await runtime.database.write(work)
    return answer(made | {"listener": listener(at)}, 201, {"Cache-Control": "no-store"})


@router.get("/{id}/password", response_model=DevicePasswordOut)
async def get_device_password(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    """Whether the unit has a password at the broker: its user name, and when it was made."""
    await unit_of(runtime, caller, id)
    found = await runtime.database.read(lambda connection: device_passwords.get(connection, id))
    none = {"username": device_passwords.user_of(id), "issued_ms": None, "issued_by": None}
    return answer(found or none)


@router.delete("/{id}/password", status_code=204, response_model=None)
async def revoke_device_password(runtime: RuntimeDep, caller: Owner, id: AnId) -> Response:
    """Ends the unit's password: the broker disconnects it within two seconds and lets it in no more."""
    await unit_of(runtime, caller, id)

    def work(connection: Connection) -> bool:
        done = device_passwords.revoke(connection, id)
        if done:
            audit_log.record(connection, caller, "revoked", f"units/{id}", what="password")
        return done

    if not await runtime.database.write(work):
        raise Problem(404, f"unit {id} has no password.")
    return Response(status_code=204)
