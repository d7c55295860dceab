"""The gateway's endpoint is reached, and believed to be local, under whatever address it was told to use."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest
from qilu_gateway.endpoint import Answer, Endpoint, Request


def own_address() -> str:
    """This machine's on its network, or loopback's where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::", "own"])
async def test_its_url_is_one_that_this_machine_reaches_it_by_and_is_local_to(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    address = own_address() if host == "own" else host

    async def serve(request: Request) -> Answer:
        return 200, "text/plain", str(request.local).encode()

    endpoint = Endpoint(address, 0, {("POST", "/where"): serve})
    running = asyncio.create_task(endpoint.run())
    try:
        async with asyncio.timeout(10):
            while not endpoint.url:
                await asyncio.sleep(0.01)
        if host == "own":
            assert endpoint.url == f"http://{address}:{endpoint.port}"
        kind = {"Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=endpoint.url, trust_env=False, headers=kind) as http:
            assert (await http.post("/where")).text == "True"
            # A page in a browser, of a name that somebody else made point here.
            assert (await http.post("/where", headers={"Host": "evil.example:80"})).text == "False"
            assert (await http.post("/where", headers={"Content-Type": "text/plain"})).text == "False"
    finally:
        running.cancel()
        await asyncio.wait([running])
