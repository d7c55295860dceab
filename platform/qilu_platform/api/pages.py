"""Health, metrics, and the console: static files, and a map that ships with the contract."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text

from qilu_platform.api.common import RuntimeDep, answer
from qilu_platform.api.console_files import Asset, ConsoleFiles, early_script, file
from qilu_platform.api.problems import Problem
from qilu_platform.monitoring.catalogue import console_catalogue

router = APIRouter(include_in_schema=False)

console = ConsoleFiles()

_EARLY = base64.b64encode(hashlib.sha256(early_script().encode()).digest()).decode()
# The console brings everything it shows: nothing is loaded from elsewhere, and one script is in the page.
_PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'self'; script-src 'self' 'sha256-{_EARLY}'; "
    "object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
}


@router.get("/")
async def index(request: Request) -> Response:
    page = file("index.html")
    if page is None:
        raise Problem(404, "This installation has no console; the API is described at /openapi.json.")
    answer = page.answer(request.headers)
    answer.headers.update(_PAGE_HEADERS)
    return answer


@cache
def _map() -> Asset:
    body = files("qilu_contract").joinpath("data", "shandong.geojson").read_bytes()
    return Asset.of(body, "application/geo+json")


@router.get("/console/shandong.geojson")
async def province_map(request: Request) -> Response:
    return _map().answer(request.headers, "max-age=86400")


@cache
def _catalogue() -> Asset:
    return Asset.of(console_catalogue(), "application/json")


@router.get("/console/catalogue.json")
async def catalogue(request: Request) -> Response:
    """Names that the console displays; constant while the platform runs."""
    return _catalogue().answer(request.headers)


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
