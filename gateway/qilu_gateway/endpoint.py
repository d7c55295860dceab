"""HTTP endpoint of the gateway: /metrics for Prometheus, /healthz for the service manager, and dead letters
for callers with the key.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from qilu_common.private_files import write_private
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

ADDRESS_FILE, KEY_FILE = "endpoint", "endpoint.key"
"""Files in the state directory: the address of a running gateway, and the key for its dead letters."""
KEY = "QILU_GATEWAY_KEY"
"""Name of the secret that is the key for dead letters; without it a gateway makes one at each start."""
MAX_CONNECTIONS = 100
MAX_BODY = 1024 * 1024
ANSWER_S = 120.0
"""Timeout of a request about dead letters; a replay may involve many."""

Handler = Callable[[Request], Awaitable[Response]]


def leave_address(state: Path, url: str, key: str) -> None:
    """Write the gateway's address and key to the state directory, for commands on this machine."""
    write_private(state / KEY_FILE, key + "\n")
    write_private(state / ADDRESS_FILE, url + "\n")


def keyed(handler: Handler, key: str) -> Handler:
    """Wrap a handler: only requests with the key (`Authorization: Bearer …`) are served."""

    @functools.wraps(handler)
    async def guarded(request: Request) -> Response:
        shown = request.headers.get("authorization", "").encode()
        if not secrets.compare_digest(shown, f"Bearer {key}".encode()):
            raise HTTPException(
                401,
                f"Dead letters need {KEY}, or the key in {KEY_FILE} in the gateway's state directory.\n",
                headers={"WWW-Authenticate": "Bearer"},
            )
        try:
            async with asyncio.timeout(ANSWER_S):
                return await handler(request)
        except TimeoutError:
            return PlainTextResponse(f"Not done within {ANSWER_S:.0f} s; ask again.\n", 503)
        except ClientDisconnect:
            return Response(status_code=400)

    return guarded


async def body(request: Request) -> bytes:
    """The request's body. Raises HTTPException when it is too large."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > MAX_BODY:
            raise HTTPException(413, f"The body is larger than {MAX_BODY} bytes.\n")
    return bytes(parts)
