"""Client for the calls that a gateway makes to the platform. Every failure means `PlatformAway`: the caller
repeats the call and concludes nothing from the failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeVar

import httpx2
import msgspec
from qilu_common import platform_http
from qilu_common.platform_http import PlatformHttp
from qilu_contract.errors import QiluError

MAX_IDS = 5000
"""Maximum number of ids per call."""
MAX_COLUMN_IDS = 20_000
"""Maximum number of ids per columnar call: admission, first readings, activity."""
TIMEOUT_S = 20.0
_T = TypeVar("_T")


class PlatformAway(QiluError):
    """The platform did not answer, or its answer was malformed."""


class NotTaken(PlatformAway):
    """The platform rejects the call (4xx) or does not know it; a retry would fail as well."""


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """Enterprise and place of a unit."""

    enterprise: str
    county: str
    city: str
    industry: str


class Answers(msgspec.Struct, frozen=True, rename={"class_": "class"}):
    """The platform's answer about the requested units, in their order: for each unit the positions of its
    class in `classes` and of its owner in `owners`. Both are -1 for a unit that is not admitted. `signals`:
    what is known of the generic units among them."""

    classes: list[str]
    owners: list[Owner]
    class_: list[int]
    owner: list[int]
    on_cloud: list[bool]
    signals: dict[str, list[str]] = {}


class Barred(msgspec.Struct, frozen=True):
    """Units that were suspended or retired, to be requested again. `next` is the position to continue from.
    If `epoch` has changed, or `next` is before the requested position, the registry may have been restored
    from a backup."""

    next: int
    units: list[str]
    enterprises: list[str]
    epoch: str = ""


class Shares(msgspec.Struct, frozen=True):
    """Shards that this gateway serves, and wanted ones that another gateway has. `inherited`: those of
    `shards` that another gateway served last; an older platform does not say so."""

    shards: list[int]
    taken: list[int]
    inherited: list[int] = []


class _FirstReadings(msgspec.Struct):
    counted: int
    already: int
    unknown: list[str]


class PlatformApi:
    """Client of `/v1/ingest`, opened by `async with`."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._http = PlatformHttp(url, api_key, "ingest", TIMEOUT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def admission(self, units: Sequence[str]) -> Answers:
        """Which of `units` (at most MAX_COLUMN_IDS) are admitted, with their classes and owners."""
        body = msgspec.json.encode({"units": units})
        found = await self._post("/v1/ingest/admission-columns", body, Answers)
        if {len(found.class_), len(found.owner), len(found.on_cloud)} != {len(units)}:
            raise PlatformAway(f"{self._http.url} answered for other units than it was asked for")
        return found

    async def barred(self, after: int | None) -> Barred:
        """Units barred since `after`; with None no units, only the position to continue from."""
        query = {} if after is None else {"after": after}
        return await self._call("GET", "/v1/ingest/barred", Barred, params=query)

    async def first_readings(self, units: Sequence[str], ts_ms: Sequence[int]) -> list[str]:
        """Report the first readings of `units` (at most MAX_COLUMN_IDS); returns those that the platform does
        not know."""
        body = msgspec.json.encode({"units": units, "ts_ms": ts_ms})
        return (await self._post("/v1/ingest/first-readings", body, _FirstReadings)).unknown

    async def activity(self, units: Sequence[str], ts_ms: Sequence[int]) -> None:
        """Report recent readings of `units` (at most MAX_COLUMN_IDS)."""
        body = msgspec.json.encode({"units": units, "ts_ms": ts_ms})
        await self._post("/v1/ingest/activity", body, dict[str, object])

    async def deaths(self, units: Sequence[str]) -> None:
        """Report units that died, according to their edge nodes."""
        await self._post("/v1/ingest/deaths", msgspec.json.encode({"units": units}), dict[str, object])

    async def shards(
        self, pool: str, gateway: str, wanted: Sequence[int], held: Sequence[int], *, fixed: bool
    ) -> Shares:
        """Ask which shards this gateway serves. Raises NotTaken, also from a platform that predates this
        call."""
        asked = {"pool": pool, "gateway": gateway, "wanted": wanted, "held": held, "fixed": fixed}
        return await self._post("/v1/ingest/shards", msgspec.json.encode(asked), Shares)

    async def problems(self, found: Sequence[msgspec.Struct]) -> None:
        """Report problems with units' readings. Raises NotTaken, also from a platform that predates this
        call."""
        body = msgspec.json.encode({"problems": found})
        await self._send("POST", "/v1/problems", content=body, headers={"Content-Type": "application/json"})

    async def signals(self, learned: Sequence[msgspec.Struct]) -> None:
        """Report signals that generic units have sent. Raises NotTaken, also from a platform that predates
        this call."""
        body = msgspec.json.encode({"signals": learned})
        await self._send(
            "POST", "/v1/ingest/signals", content=body, headers={"Content-Type": "application/json"}
        )

    async def _post(self, path: str, body: bytes, answer: type[_T]) -> _T:
        headers = {"Content-Type": "application/json"}
        return await self._call("POST", path, answer, content=body, headers=headers)

    async def _call(self, method: str, path: str, answer: type[_T], **more: Any) -> _T:
        response = await self._send(method, path, **more)
        try:
            return msgspec.json.decode(response.content, type=answer)
        except msgspec.DecodeError as error:
            raise PlatformAway(f"{self._http.url}{path} answered something else: {error}") from error

    async def _send(self, method: str, path: str, **more: Any) -> httpx2.Response:
        try:
            return await self._http.send(method, path, **more)
        except (platform_http.PlatformAway, platform_http.KeyRefused) as error:
            raise PlatformAway(str(error)) from error
        except platform_http.PlatformError as error:
            kind = NotTaken if 400 <= error.status < 500 else PlatformAway
            raise kind(f"{self._http.url}{path} answered {error.status}: {error}") from error
