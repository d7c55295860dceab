"""Dead letters of the gateway on this machine, requested from the gateway's endpoint."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2

ADDRESS_FILE, KEY_FILE = "endpoint", "endpoint.key"
"""The gateway leaves them in its state directory: where it serves, and the key to its dead letters."""
PATIENCE = httpx2.Timeout(150.0, connect=5.0)
"""Longer than the gateway's own time limit for a replay."""
MAX_PAYLOAD_CHARS = 4_000
"""A payload is shown up to here: the largest has 16 MiB."""
LARGE_PAGE_BYTES = 16 * 1024 * 1024
_SHOWN = (
    *("id", "reason", "detail", "topic", "unit", "payload_bytes", "readings"),
    *("first_seen_ms", "last_seen_ms"),
)


class GatewayAway(Exception):
    """The gateway did not do it; the text says why."""


async def fetch(state: Path, choice: dict[str, Any], limit: int) -> dict[str, Any]:
    """{"items", "next"}: the newest letters that match `choice`. Raises GatewayAway."""
    given = {name: value for name, value in choice.items() if value is not None}
    rows = await _ask(state, "GET", "", params={**given, "limit": limit})
    items = [{name: row[name] for name in _SHOWN} | _payload(row) for row in rows]
    # The gateway makes a page of large letters shorter.
    more = len(rows) == limit or sum(map(_kept_bytes, rows)) > LARGE_PAGE_BYTES
    return {"items": items, "next": items[-1]["id"] if more else None}


async def replay(state: Path, choice: dict[str, Any]) -> dict[str, Any]:
    """The gateway processes letters again; {"done", "readings", "kept", "before_id"}. Raises GatewayAway."""
    outcome: dict[str, Any] = await _ask(state, "POST", "/replay", json=choice)
    return outcome


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    return {"payload": row["payload"][:MAX_PAYLOAD_CHARS], "whole": _kept_bytes(row) == row["payload_bytes"]}


def _kept_bytes(row: dict[str, Any]) -> int:
    exact: str = row["payload_base64"]
    return len(exact) // 4 * 3 - exact[-2:].count("=")


async def _ask(state: Path, method: str, path: str, **more: Any) -> Any:
    try:
        # Read each time: a gateway that starts again has another key.
        address, key = await asyncio.to_thread(_endpoint, state)
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


def _endpoint(state: Path) -> tuple[str, str]:
    address, key = ((state / name).read_text(encoding="utf-8").strip() for name in (ADDRESS_FILE, KEY_FILE))
    return address, key
