"""Dead letters of the gateways: of one on this machine, whose state directory is known, and of those at the
addresses that the settings list. Every request goes to one gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from qilu_contract.errors import ConfigError

ADDRESS_FILE, KEY_FILE = "endpoint", "endpoint.key"
"""The gateway leaves them in its state directory: where it serves, and the key to its dead letters."""
LOCAL = "local"
"""Name of the gateway whose state directory is known."""
PATIENCE = httpx2.Timeout(150.0, connect=5.0)
"""Longer than the gateway's own time limit for a replay."""
LOOK = httpx2.Timeout(3.0)
"""All gateways are asked at once for their shards."""
MAX_PAYLOAD_CHARS = 4_000
"""A payload is shown up to here: the largest has 16 MiB."""
LARGE_PAGE_BYTES = 16 * 1024 * 1024
_SHOWN = (
    *("id", "reason", "detail", "topic", "unit", "payload_bytes", "readings"),
    *("first_seen_ms", "last_seen_ms"),
)


class GatewayAway(Exception):
    """The gateway did not do it; the text says why."""


class UnknownGateway(Exception):
    """No gateway has this name; the text lists those that there are."""


def _named(address: str) -> str:
    """The name of the gateway at an address: host and port. Raises ConfigError."""
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None:
        raise ConfigError(
            f"QILU_PLATFORM_GATEWAYS: {address} is no address of a gateway: write http://host:8081."
        )
    return f"{parts.hostname}:{port}"


class Gateways:
    """A gateway's name is host and port, for one that shares shards followed by the shard (`host:8081/3`), as
    each shard has its own dead letters."""

    def __init__(self, addresses: Sequence[str], key: str | None, state: Path | None) -> None:
        """`key`: the one that all gateways at `addresses` have. Raises ConfigError."""
        if addresses and key is None:
            raise ConfigError(
                "QILU_PLATFORM_GATEWAYS needs QILU_GATEWAY_KEY, the key that these gateways have, too."
            )
        self._addresses = {_named(address): address.rstrip("/") for address in addresses}
        self._key, self._state = key or "", state

    def __bool__(self) -> bool:
        """Whether the platform knows any gateway."""
        return bool(self._addresses) or self._state is not None

    @property
    def _names(self) -> list[str]:
        return [*([] if self._state is None else [LOCAL]), *self._addresses]

    async def names(self) -> list[dict[str, str]]:
        """{"gateway", "problem"} of each gateway, or of each of its shards; `problem` says why a gateway does
        not answer."""
        found = await asyncio.gather(*map(self._shards, self._addresses))
        local = [] if self._state is None else [{"gateway": LOCAL, "problem": ""}]
        return local + [each for some in found for each in some]

    async def _shards(self, name: str) -> list[dict[str, str]]:
        try:
            async with httpx2.AsyncClient(timeout=LOOK, trust_env=False) as http:
                health = (await http.get(f"{self._addresses[name]}/healthz")).json()
            shards = sorted(int(shard.partition("/")[0]) for shard in health.get("shards", ()))
        except (httpx2.HTTPError, ValueError, AttributeError) as error:
            return [{"gateway": name, "problem": str(error) or type(error).__name__}]
        if "shards" not in health:
            return [{"gateway": name, "problem": ""}]
        return [{"gateway": f"{name}/{shard}", "problem": ""} for shard in shards]

    async def fetch(self, gateway: str | None, choice: dict[str, Any], limit: int) -> dict[str, Any]:
        """{"items", "next"}: the newest letters that match `choice`. Raises GatewayAway, UnknownGateway."""
        given = {name: value for name, value in choice.items() if value is not None}
        rows = await self._ask(gateway, "GET", "", params={**given, "limit": limit})
        items = [{name: row[name] for name in _SHOWN} | _payload(row) for row in rows]
        # The gateway makes a page of large letters shorter.
        more = len(rows) == limit or sum(map(_kept_bytes, rows)) > LARGE_PAGE_BYTES
        return {"items": items, "next": items[-1]["id"] if more else None}

    async def replay(self, gateway: str | None, choice: dict[str, Any]) -> dict[str, Any]:
        """The gateway processes letters again; {"done", "readings", "kept", "before_id"}. Raises GatewayAway,
        UnknownGateway."""
        outcome: dict[str, Any] = await self._ask(gateway, "POST", "/replay", json=choice)
        return outcome

    async def _ask(self, gateway: str | None, method: str, path: str, **more: Any) -> Any:
        try:
            # Files are read each time: a gateway that starts again may have another key.
            address, key = await asyncio.to_thread(self._endpoint, gateway)
            async with httpx2.AsyncClient(base_url=address, timeout=PATIENCE, trust_env=False) as http:
                headers = {"Authorization": f"Bearer {key}"}
                answer = await http.request(method, f"/dead-letters{path}", headers=headers, **more)
        except OSError as error:
            raise GatewayAway(f"{error.filename} cannot be read: {error.strerror}") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise GatewayAway(str(error) or type(error).__name__) from error
        if answer.status_code != 200:
            raise GatewayAway(f"it answered {answer.status_code}: {answer.text.strip()[:200]}")
        return answer.json()

    def _endpoint(self, gateway: str | None) -> tuple[str, str]:
        """Address and key; of the only gateway, or the first one, where no name is given."""
        name, slash, shard = (self._names[0] if gateway is None else gateway).partition("/")
        if name == LOCAL and self._state is not None and not slash:
            files = (self._state / file for file in (ADDRESS_FILE, KEY_FILE))
            address, key = (file.read_text(encoding="utf-8").strip() for file in files)
            return address, key
        if name not in self._addresses or (slash and not (shard.isascii() and shard.isdecimal())):
            raise UnknownGateway(f"There is no gateway {gateway!r}; there are: {', '.join(self._names)}")
        return self._addresses[name] + (f"/shards/{int(shard)}" if slash else ""), self._key


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    return {"payload": row["payload"][:MAX_PAYLOAD_CHARS], "whole": _kept_bytes(row) == row["payload_bytes"]}


def _kept_bytes(row: dict[str, Any]) -> int:
    exact: str = row["payload_base64"]
    return len(exact) // 4 * 3 - exact[-2:].count("=")
