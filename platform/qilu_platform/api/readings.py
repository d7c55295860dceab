"""Readings of one unit, from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.generic import COUNTED, GENERIC, is_signal_name
from qilu_contract.catalogue.titles import titles
from qilu_contract.durations import duration_ms
from qilu_contract.storage import BORN
from qilu_contract.store import Aggregate, PlatformStore, SeriesQuery
from qilu_stores.cells import store_of

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, AnId, Reader, RuntimeDep, answer
from qilu_platform.api.periods import From, To, period_ms
from qilu_platform.api.problems import Problem
from qilu_platform.database.schema import units
from qilu_platform.models.device_types import UnitSignalsOut
from qilu_platform.models.reports import LatestOut, ReadingsOut
from qilu_platform.registry import device_types
from qilu_platform.registry.keys import Caller
from qilu_platform.registry.listing import get_row
from qilu_platform.runtime import Runtime

router = APIRouter(prefix="/v1/units", tags=["readings"], responses=PROBLEMS | NOT_FOUND)


STORE_TIMEOUT_S = 15.0


@router.get("/{id}/latest", response_model=LatestOut)
async def get_latest(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    unit = await unit_of(runtime, caller, id)
    async with asking(runtime, unit["county"]) as store:
        row = await store.latest(unit["class"], {"unit": id})
    if row is None:
        raise Problem(404, f"unit {id} has no readings yet.")
    for name in (BORN, COUNTED):  # no signals
        row.values.pop(name, None)
    return answer({"unit": id, "ts_ms": row.ts_ms, "values": row.values})


@router.get("/{id}/readings", response_model=ReadingsOut)
async def get_readings(
    runtime: RuntimeDep,
    caller: Reader,
    id: AnId,
    from_: From = None,
    to: To = None,
    signal: Annotated[list[str] | None, Query(description="Once for each; else all of the class.")] = None,
    every: Annotated[
        str | None, Query(description="Bucket, such as 30s, 1m, 2h, 1d; else single readings.")
    ] = None,
    fn: Annotated[Aggregate, Query(description="Aggregate of a bucket.")] = "mean",
) -> Response:
    """Rows in the order of time, of the last hour without `from`; a signal that was not sampled then is
    null."""
    unit = await unit_of(runtime, caller, id)
    start_ms, end_ms = period_ms(from_, to)
    signals = (await signals_of(runtime, unit))["items"]
    # The store has no signal of a device type before a unit has sent it.
    known = [each["name"] for each in signals if unit["class"] != GENERIC or each["since_ms"] is not None]
    names = list(dict.fromkeys(signal)) if signal else known
    stored = [name for name in names if name in known]
    # A signal of a generic unit is on its page before the gateway has reported it.
    if unknown := [name for name in names if name not in stored and not _may_come(unit, name)]:
        raise Problem(
            422, f"signal: a {unit['class']} has no {unknown[0][:80]!r}; it has {', '.join(known) or 'none'}."
        )
    if not stored:
        return answer({"unit": id, "columns": ["ts_ms", *names], "rows": []})
    every_ms = None if every is None else _duration(every)
    async with asking(runtime, unit["county"]) as store:
        try:
            rows = await store.series(
                SeriesQuery(unit["class"], {"unit": id}, stored, start_ms, end_ms, every_ms, fn)
            )
        except ValueError as error:
            raise Problem(422, f"The store cannot answer that: {error}") from error
    table = [[row.ts_ms, *(row.values.get(name) for name in names)] for row in rows]
    return answer({"unit": id, "columns": ["ts_ms", *names], "rows": table})


def _may_come(unit: dict[str, Any], name: str) -> bool:
    return unit["class"] == GENERIC and is_signal_name(name)


@router.get("/{id}/signals", response_model=UnitSignalsOut)
async def list_signals(runtime: RuntimeDep, caller: Reader, id: AnId) -> Response:
    """The signals of a unit: those of its class; of a generic one those of its device type, and those that it
    has sent besides."""
    return answer(await signals_of(runtime, await unit_of(runtime, caller, id)))


async def signals_of(runtime: Runtime, unit: dict[str, Any]) -> dict[str, Any]:
    """As `device_types.described`, for units of all classes."""
    if unit["class"] == GENERIC:
        return await runtime.database.read(lambda found: device_types.described(found, unit["id"]))
    names = ("name", "unit", "low", "high")
    items = [
        {name: getattr(each, name) for name in names}
        | titles("signal", unit["class"], each.name)._asdict()
        | {"since_ms": None}
        for each in CATALOGUE[unit["class"]].signals
    ]
    return {"type": None, "items": items}


async def unit_of(runtime: Runtime, caller: Caller, id_: str) -> dict[str, Any]:
    unit = await runtime.database.read(lambda connection: get_row(connection, units, id_))
    if unit is None or not caller.sees(unit["enterprise"]):
        raise Problem(404, f"unit {id_} does not exist.")
    return unit


@asynccontextmanager
async def asking(runtime: Runtime, county: str | None = None) -> AsyncIterator[PlatformStore]:
    """The store, or the part of it that has the readings of a county. Raises Problem when it does not answer
    in time."""
    if runtime.store is None:
        raise Problem(503, "The platform runs without a store of readings: start it with --store.")
    try:
        async with asyncio.timeout(STORE_TIMEOUT_S):
            yield runtime.store if county is None else store_of(runtime.store, county)
    except TimeoutError as error:
        raise Problem(
            503,
            f"The store of readings did not answer in {STORE_TIMEOUT_S:.0f} s.",
            headers={"Retry-After": "5"},
        ) from error


def _duration(text: str) -> int:
    """Milliseconds of whole seconds."""
    try:
        found_ms = duration_ms(text)
    except ValueError:
        found_ms = 0
    if found_ms == 0 or found_ms % 1000:
        raise Problem(422, "every: not a duration; give a number and s, m, h or d, such as 1m.")
    return found_ms
