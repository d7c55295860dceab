"""Registers a fleet at the platform before it publishes: enterprises, providers, contracts, units.
Idempotent, in bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec
from qilu_common.platform_http import PlatformError, PlatformHttp
from qilu_common.splitmix import text_key
from qilu_contract.errors import ConfigError

from qilu_devices.fleet import Enterprise, Unit

CHUNK_LINES = 5000  # a quarter of what the platform takes in one call
START_DEADLINE_S = 120.0
"""Time that the platform may take to start, or to become available again."""

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
"""Called with the kind of resource, the number registered, and the total."""


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
    """Contracts of an enterprise, from its id alone. Each has an equipment contract, by which its units are
    on cloud; some have others."""
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
        self._http = PlatformHttp(platform_url, key, "fleet")
        self._progress = progress

    async def register(self, units: Sequence[Unit]) -> None:
        """Returns when the platform knows the whole fleet. Raises ConfigError when it refuses the key or a
        line, or does not answer within two minutes."""
        enterprises = list({unit.enterprise.id: unit.enterprise for unit in units}.values())
        contracts = [line for enterprise in enterprises for line in contract_lines(enterprise)]
        providers: list[dict[str, Any]] = [{"id": id_, "name": name} for id_, name in PROVIDERS]
        try:
            await self._bulk("enterprises", map(enterprise_line, enterprises), len(enterprises))
            await self._bulk("providers", providers, len(providers))
            await self._bulk("contracts", contracts, len(contracts))
            await self._bulk("units", map(unit_line, units), len(units))
        finally:
            await self._http.close()

    async def _bulk(self, what: str, lines: Iterable[dict[str, Any]], total: int) -> None:
        done = 0
        self._progress(what, done, total)
        rest = iter(lines)
        while chunk := list(islice(rest, CHUNK_LINES)):
            body = b"\n".join(map(msgspec.json.encode, chunk)) + b"\n"
            answer = await self._post(f"/v1/{what}/bulk", body)
            if answer.errors:
                first = answer.errors[0]
                raise ConfigError(
                    f"{self._http.url} refuses {len(answer.errors)} of {len(chunk)} {what} ({first.detail}): "
                    "use an empty database, or the scenario and seed that it was filled with."
                )
            done += len(chunk)
            self._progress(what, done, total)

    async def _post(self, path: str, body: bytes) -> BulkAnswer:
        headers = {"Content-Type": "application/x-ndjson"}
        try:
            response = await self._http.send_patiently(
                START_DEADLINE_S, "POST", path, content=body, headers=headers
            )
            return msgspec.json.decode(response.content, type=BulkAnswer)
        except PlatformError as error:
            raise ConfigError(str(error)) from error
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{self._http.url}{path} answers something else ({error}): is it our platform?"
            ) from error
