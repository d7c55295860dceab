"""Live readings of one unit, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from qilu_platform.api.common import NOT_FOUND, PROBLEMS, STREAM, AnId, Reader, RuntimeDep
from qilu_platform.api.problems import Problem
from qilu_platform.api.readings import unit_of
from qilu_platform.monitoring.live import TooManyWatched

router = APIRouter(prefix="/v1/units", tags=["readings"], responses=PROBLEMS | NOT_FOUND)


@router.get(
    "/{id}/events",
    response_class=StreamingResponse,
    responses=STREAM,
)
async def stream_unit_events(runtime: RuntimeDep, caller: Reader, id: AnId) -> StreamingResponse:
    """Server-sent events: `latest` (each signal's last value) at once, `readings` (a table of new ones)
    within about a second of their storage, `store` when the store of readings becomes unavailable (`error`)
    or available again."""
    runtime.hub.check_open()
    unit = await unit_of(runtime, caller, id)
    if runtime.live is None:
        raise Problem(503, "The platform runs without a store of readings: start it with --store.")
    events = runtime.live.stream(id, unit["class"], unit["county"])
    try:
        first = await anext(events)
    except TooManyWatched as error:
        raise Problem(
            503, "Too many different units are watched at the moment.", headers={"Retry-After": "30"}
        ) from error
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_all(first, events), headers=headers, media_type="text/event-stream")


async def _all(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for event in events:
        yield event
