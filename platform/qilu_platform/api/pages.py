"""Health, metrics, and the console: static files, and a map that ships with the contract."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from starlette.staticfiles import StaticFiles

from qilu_platform.api.common import RuntimeDep, answer
from qilu_platform.api.problems import Problem
from qilu_platform.monitoring.catalogue import console_catalogue

router = APIRouter(include_in_schema=False)

_CONSOLE = Path(__file__).parent.parent / "console"


class _Console(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        # Revalidated each time (304 when unchanged), because pages and modules of two versions must not be
        # mixed.
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


console = _Console(directory=_CONSOLE, check_dir=False)

# The console brings everything it shows: nothing is loaded from elsewhere.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


@router.get("/")
async def index() -> FileResponse:
    page = _CONSOLE / "index.html"
    if not page.is_file():
        raise Problem(404, "This installation has no console; the API is described at /openapi.json.")
    return FileResponse(page, headers=_PAGE_HEADERS)


@cache
def _map() -> bytes:
    return files("qilu_contract").joinpath("data", "shandong.geojson").read_bytes()


@router.get("/console/shandong.geojson")
async def province_map() -> Response:
    return Response(_map(), headers={"Cache-Control": "max-age=86400"}, media_type="application/geo+json")


@router.get("/console/catalogue.json")
async def catalogue(request: Request) -> Response:
    """Names that the console displays; constant while the platform runs."""
    body, tag = console_catalogue()
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@router.get("/healthz")
async def healthz(runtime: RuntimeDep) -> Response:
    """200 while the database answers; `reasons` says what does not work meanwhile."""
    await runtime.database.read(lambda connection: connection.execute(text("SELECT 1")).one())
    trouble = runtime.database.trouble
    return answer({"status": "degraded", "reasons": {"registry": trouble}} if trouble else {"status": "ok"})


@router.get("/readyz")
async def readyz(runtime: RuntimeDep) -> Response:
    """Readiness: 200 while the platform accepts requests; 503 while the database is unavailable or too many
    requests wait for it, and when the platform is stopping."""
    runtime.hub.check_open()
    await runtime.database.read(lambda connection: connection.execute(text("SELECT 1 FROM counters")).first())
    return answer({"status": "ready"})


@router.get("/metrics")
async def metrics(runtime: RuntimeDep) -> Response:
    return Response(generate_latest(runtime.metrics.registry), media_type=CONTENT_TYPE_LATEST)
