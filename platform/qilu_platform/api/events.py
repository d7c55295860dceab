"""Event stream: server-sent events about changes."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from qilu_platform.api.common import AWAY, INVALID, STREAM, RuntimeDep

router = APIRouter(prefix="/v1", tags=["programme"], responses=INVALID | AWAY)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses=STREAM,
)
async def stream_events(runtime: RuntimeDep, request: Request) -> StreamingResponse:
    """Server-sent events: `programme` (as GET /v1/programme answers) at most once a second and only when it
    changed, `pipeline` every two seconds while a gateway runs, `alarms` (open ones by city and class),
    `ticker` (what happened last), `activity` (readings of the last minute by city), `replay` (the month of a
    run of the model that is played, and its scale); the latest of each at once."""
    runtime.hub.check_open()
    client = request.client.host if request.client is not None else ""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(runtime.hub.stream(client), headers=headers, media_type="text/event-stream")
