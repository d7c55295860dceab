"""Routes for device types, and for those of units."""

from __future__ import annotations

from fastapi import APIRouter, Response
from sqlalchemy import Connection

from qilu_platform.api.common import (
    CONFLICT,
    NOT_FOUND,
    PROBLEMS,
    AnId,
    Operator,
    Owner,
    Reader,
    RuntimeDep,
    answer,
)
from qilu_platform.api.readings import unit_of
from qilu_platform.models.device_types import (
    DeviceTypeIn,
    DeviceTypeOut,
    DeviceTypesOut,
    UnitTypeIn,
)
from qilu_platform.registry import audit_log, device_types

router = APIRouter(prefix="/v1", tags=["device types"], responses=PROBLEMS)


@router.get("/device-types", response_model=DeviceTypesOut)
async def list_device_types(runtime: RuntimeDep, _caller: Reader) -> Response:
    """Classes that operators describe for generic units, so that a new kind of device needs no restart."""
    return answer({"items": await runtime.database.read(device_types.listed)})


@router.put("/device-types/{id}", response_model=DeviceTypeOut, responses=CONFLICT)
async def put_device_type(runtime: RuntimeDep, caller: Operator, id: AnId, body: DeviceTypeIn) -> Response:
    """Makes a device type, or replaces it. Titles, units and ranges are shown; nothing is refused and no
    alarm rings because of them."""
    type_ = {"id": id, **body.row()}

    def work(connection: Connection) -> None:
        device_types.put(connection, type_)
        audit_log.record(connection, caller, "described", f"device-types/{id}", what="signals")

    await runtime.database.write(work)
    return answer(type_)


@router.delete("/device-types/{id}", status_code=204, response_model=None, responses=NOT_FOUND | CONFLICT)
async def delete_device_type(runtime: RuntimeDep, caller: Operator, id: AnId) -> Response:
    """Refused while units have this device type."""

    def work(connection: Connection) -> None:
        device_types.remove(connection, id)
        audit_log.record(connection, caller, "deleted", f"device-types/{id}")

    await runtime.database.write(work)
    return Response(status_code=204)


@router.put("/units/{id}/device-type", status_code=204, response_model=None, responses=NOT_FOUND | CONFLICT)
async def put_unit_device_type(runtime: RuntimeDep, caller: Owner, id: AnId, body: UnitTypeIn) -> Response:
    """Gives a generic unit a device type, or none."""
    await unit_of(runtime, caller, id)

    def work(connection: Connection) -> None:
        device_types.assign(connection, id, body.type)
        audit_log.record(connection, caller, "described", f"units/{id}", type=body.type)

    await runtime.database.write(work)
    return Response(status_code=204)
