"""Registers a fleet at the platform before it publishes: enterprises, providers, contracts, units.
Idempotent, in bulk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import httpx2
import msgspec
from qilu_common import platform_address
from qilu_common.splitmix import text_key
from qilu_contract.errors import ConfigError

from qilu_devices.fleet import Enterprise, Unit

CHUNK_LINES = 5000  # a quarter of what the platform takes in one call
CALL_TIMEOUT_S = 60.0
START_DEADLINE_S = 120.0
"""How long the platform may take to come up, or to come back."""
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0

PROVIDERS = (
    ("provider-sim-01", "Taishan Cloud"),
    ("provider-sim-02", "Jiaodong Industrial Cloud"),
    ("provider-sim-03", "Yellow River Data"),
    ("provider-sim-04", "Laizhou Bay Systems"),
    ("provider-sim-05", "Yimeng Software"),
)
_OTHER_KINDS = ("infrastructure", "platform", "business")
_OTHER_SHARE = 0.3  # A: share of enterprises that have each of the other kinds, too

Progress = Callable[[str, int, int], None]
"""Called with what is registered, how many are done, and how many there are."""


class BulkLineError(msgspec.Struct):
    line: int
    detail: str


class BulkAnswer(msgspec.Struct):
    created: int
    existing: int
    errors: list[BulkLineError]


def enterprise_line(enterprise: Enterprise) -> dict[str, Any]:
    return {
        "id": enterprise.id,
        "name": enterprise.name,
        "county": enterprise.county,
        "industry": enterprise.industry,
    }


def contract_lines(enterprise: Enterprise) -> Iterator[dict[str, Any]]:
    """Every enterprise has an equipment contract, for its units are on cloud by it; some have others. Of the
    id alone."""
    for kind in ("equipment", *_OTHER_KINDS):
        draw = text_key(f"contract/{kind}/{enterprise.id}")
        if kind == "equipment" or draw % 1000 < 1000 * _OTHER_SHARE:
            provider = PROVIDERS[draw // 1000 % len(PROVIDERS)][0]
            yield {
                "id": f"{enterprise.id}-{kind}",
                "enterprise": enterprise.id,
                "provider": provider,
                "kind": kind,
            }


def unit_line(unit: Unit) -> dict[str, Any]:
    return {"id": unit.id, "class": unit.class_name, "enterprise": unit.enterprise.id}


class Registration:
    """Registers fleets at one platform. `key` must have the role `fleet` (or `admin`)."""

    def __init__(self, platform_url: str, key: str | None, progress: Progress) -> None:
        self._url = platform_address.platform_url(platform_url)
        self._headers = {"Content-Type": "application/x-ndjson"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._progress = progress

    async def register(self, units: Sequence[Unit]) -> None:
        """Returns when the platform knows the whole fleet. Raises ConfigError when it refuses the key or a
        line, or does not answer within two minutes."""
        enterprises = list({unit.enterprise.id: unit.enterprise for unit in units}.values())
        contracts = [line for enterprise in enterprises for line in contract_lines(enterprise)]
        async with httpx2.AsyncClient(
            base_url=self._url, headers=self._headers, timeout=CALL_TIMEOUT_S, trust_env=False
        ) as client:
            await self._bulk(client, "enterprises", map(enterprise_line, enterprises), len(enterprises))
            providers: list[dict[str, Any]] = [{"id": id_, "name": name} for id_, name in PROVIDERS]
            await self._bulk(client, "providers", providers, len(providers))
            await self._bulk(client, "contracts", contracts, len(contracts))
            await self._bulk(client, "units", map(unit_line, units), len(units))

    async def _bulk(
        self, client: httpx2.AsyncClient, what: str, lines: Iterable[dict[str, Any]], total: int
    ) -> None:
        done = 0
        self._progress(what, done, total)
        rest = iter(lines)
        while chunk := list(islice(rest, CHUNK_LINES)):
            body = b"\n".join(map(msgspec.json.encode, chunk)) + b"\n"
            answer = await self._post(client, f"/v1/{what}/bulk", body)
            if answer.errors:
                first = answer.errors[0]
                raise ConfigError(
                    f"{self._url} refuses {len(answer.errors)} of {len(chunk)} {what} ({first.detail}): "
                    "use an empty database, or the scenario and seed that it was filled with."
                )
            done += len(chunk)
            self._progress(what, done, total)

    async def _post(self, client: httpx2.AsyncClient, path: str, body: bytes) -> BulkAnswer:
        loop = asyncio.get_running_loop()
        deadline_s, delay_s = loop.time() + START_DEADLINE_S, RETRY_MIN_S
        while True:
            try:
                response = await client.post(path, content=body)
            except httpx2.InvalidURL as error:
                raise ConfigError(f"The platform's URL {self._url!r} cannot be used: {error}.") from error
            except httpx2.UnsupportedProtocol as error:
                raise ConfigError(
                    f"The platform's URL {self._url!r} must begin with http:// or https://."
                ) from error
            except httpx2.TransportError as error:
                trouble = f"does not answer ({error or type(error).__name__})"
            else:
                if response.status_code == 200:
                    return self._answer(response)
                if response.status_code in (401, 403):
                    raise ConfigError(
                        f"The platform {self._url} refuses our key ({response.status_code}): "
                        "set QILU_API_KEY to a key with the role fleet."
                    )
                if response.status_code not in (429, 502, 503, 504):
                    raise ConfigError(
                        f"{self._url} answers {response.status_code} to {path}: is it our platform?"
                    )
                trouble = f"answers {response.status_code}"
            if loop.time() > deadline_s:
                raise ConfigError(
                    f"The platform {self._url} {trouble} since {START_DEADLINE_S:.0f} s: is it running?"
                )
            await asyncio.sleep(random.uniform(0.5, 1.0) * delay_s)
            delay_s = min(2.0 * delay_s, RETRY_MAX_S)

    def _answer(self, response: httpx2.Response) -> BulkAnswer:
        try:
            return msgspec.json.decode(response.content, type=BulkAnswer)
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{self._url} gives an answer that is none ({error}): is it our platform?"
            ) from error
