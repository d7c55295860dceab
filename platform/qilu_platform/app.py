"""The platform as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI
from qilu_contract.store import PlatformStore

from qilu_platform.api import (
    alarms,
    catalogue,
    certificates,
    commands,
    connection,
    data_catalogue,
    dead_letters,
    description,
    device_passwords,
    device_problems,
    device_types,
    effectiveness,
    events,
    export,
    imports,
    ingest,
    keys,
    live,
    overview,
    pages,
    pipeline,
    policies,
    programme,
    rabbitmq,
    readings,
    registry,
    resolve,
    security,
    sessions,
    shells,
    states,
    truth,
    webhooks,
)
from qilu_platform.api.common import check_query
from qilu_platform.api.description import DescribedApp
from qilu_platform.api.problems import add_problem_handlers
from qilu_platform.edge import Edge
from qilu_platform.metrics import Metrics
from qilu_platform.runtime import open_runtime
from qilu_platform.settings import Settings

_DESCRIPTION = """
The registry and ledger of the programme "Clouds in Qilu": enterprises, their equipment, cloud contracts, and
what is truly on cloud.

Send a key as `Authorization: Bearer qilu_…`. Errors are `application/problem+json` (RFC 9457). Times are
milliseconds since 1970, UTC.
"""


_TAGS = (
    *(
        "registry",
        "catalogue",
        "data catalogue",
        "programme",
        "device types",
        "readings",
        "commands",
        "alarms",
        "problems",
        "certificates",
    ),
    *("import and export", "keys", "session", "ingest"),
)
"""The order in which the API is described: what most people look for comes first."""

_PARTS = (
    export,  # before imports, whose /v1/export/{book} is any other name
    imports,
    certificates,
    catalogue,
    states,
    registry,
    resolve,
    data_catalogue,
    programme,
    readings,
    effectiveness,
    shells,
    device_problems,
    device_passwords,
    rabbitmq,
    device_types,
    commands,
    connection,
    dead_letters,
    ingest,
    keys,
    events,
    alarms,
    live,
    overview,
    sessions,
    pipeline,
    policies,
    webhooks,
    security,
    truth,
)
"""Modules with routes under `/v1`, in the order in which they match."""


def create_app(settings: Settings, store: PlatformStore | None = None) -> FastAPI:
    """The application; its lifespan opens the database (and the store that `settings` names, unless an open
    one is given) and closes them. Does no I/O itself. While it runs, `app.state.runtime` is its Runtime."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(settings, store, metrics) as runtime:
            app.state.runtime = runtime
            yield

    app = DescribedApp(
        title="Clouds in Qilu: platform",
        version=version("clouds-in-qilu"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        # FastAPI's pages load their scripts from elsewhere; `description.py` has one that does not.
        docs_url=None,
        redoc_url=None,
        openapi_tags=[{"name": name} for name in _TAGS],
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_middleware(Edge, metrics=metrics)
    add_problem_handlers(app)
    for part in _PARTS:
        app.include_router(part.router, dependencies=[Depends(check_query)])
    app.include_router(certificates.public, dependencies=[Depends(check_query)])
    app.include_router(description.router)
    app.include_router(pages.router)
    app.mount("/console", pages.console)
    return app
