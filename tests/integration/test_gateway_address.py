"""The gateway leaves an address in its state folder under which this machine reaches it, whatever it listens
on."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from qilu_common.http_server import HttpServer
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

HAS_IPV6 = Path("/proc/net/if_inet6").exists()


def own_address() -> str:
    """This machine's on its network, or loopback's where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::", "own"])
async def test_a_server_is_reached_under_its_url(host: str) -> None:
    if ":" in host and not HAS_IPV6:
        pytest.skip("no IPv6 here")
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("here"))])
    async with HttpServer(app, own_address() if host == "own" else host, 0, 10) as server:
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(server.url)).text == "here"
        if host == "own":
            assert server.url == f"http://{own_address()}:{server.port}"
