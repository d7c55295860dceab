"""Pipeline routes: rates of accepted, refused and stored readings, and the figures of the programme's model.
Public, because they name no enterprise."""

from __future__ import annotations

import asyncio
import csv
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.store import SeriesQuery
from qilu_contract.wire.clock import wall_ms

from qilu_platform.api.common import AWAY, INVALID, RuntimeDep, answer
from qilu_platform.api.periods import Ms, period_ms
from qilu_platform.api.readings import asking
from qilu_platform.models.reports import AssumptionsOut, PipelineOut
from qilu_platform.registry import sharing

router = APIRouter(prefix="/v1", tags=["programme"], responses=INVALID | AWAY)

_RATES = ("accepted_per_s", "stored_per_s", "lag_ms")
_SILENT_MS = 60_000
"""Time without writes after which a gateway is not listed."""


@router.get("/pipeline", response_model=PipelineOut)
async def get_pipeline(
    runtime: RuntimeDep,
    from_: Annotated[Ms, Query(alias="from")] = None,
    to: Ms = None,
    rows: Annotated[int, Query(ge=2, le=1000)] = 200,
) -> Response:
    """Each gateway as it is, dead letters by reason since the gateways started, and the course of rates and
    lag: the last hour without `from` and `to`."""
    now_ms = wall_ms()
    start_ms, end_ms = period_ms(from_, to)
    every_ms = max((end_ms - start_ms) // rows, 2_000)
    async with asking(runtime) as store:
        rates = await store.series(SeriesQuery("pipeline", {}, _RATES, start_ms, end_ms, every_ms, "mean"))
        last = await store.newest("pipeline", {}, now_ms - _SILENT_MS, MAX_TIME_MS, 1_000)
        letters = await store.newest("dead_letter", {}, now_ms - _SILENT_MS, MAX_TIME_MS, 1_000)
    held_by = await runtime.database.read(sharing.holders)
    gateways: dict[str, dict[str, Any]] = {}
    for point in last:
        about = {"gateway": point.tags[0], "held_by": held_by.get(point.tags[0]), "ts_ms": point.ts_ms}
        gateways.setdefault(point.tags[0], {**about, **point.fields})
    # The newest point of each gateway and reason counts all since that gateway started.
    by_gateway: dict[tuple[str, ...], int] = {}
    for point in letters:
        by_gateway.setdefault(point.tags, int(point.fields.get("readings", 0)))
    reasons: dict[str, int] = {}
    for (_gateway, reason), readings in by_gateway.items():
        reasons[reason] = reasons.get(reason, 0) + readings
    table = [[row.ts_ms, *(row.values.get(name) for name in _RATES)] for row in rates]
    found = {
        "gateways": sorted(gateways.values(), key=lambda each: str(each["gateway"])),
        "dead_letters": reasons,
        "columns": ["ts_ms", *_RATES],
        "rows": table,
    }
    return answer(found, headers={"Cache-Control": "no-cache"})


@router.get("/assumptions", response_model=AssumptionsOut)
async def get_assumptions(runtime: RuntimeDep) -> Response:
    """The figures that the programme's model computes with: name, value, unit, mark, source. None if the
    platform has no such file."""
    file = runtime.settings.assumptions

    def read() -> list[dict[str, str]]:
        if file is None or not file.is_file():
            return []
        with file.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    return answer({"items": await asyncio.to_thread(read)})
