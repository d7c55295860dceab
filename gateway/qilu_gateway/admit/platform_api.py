"""The calls that a gateway makes to the platform. Whatever goes wrong with one means `PlatformAway`:
what was asked is asked again, and nothing is concluded from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import httpx2
import msgspec
from qilu_common import platform_http
from qilu_common.platform_http import PlatformHttp
from qilu_contract.errors import QiluError

MAX_IDS = 5000
"""The most ids that one call may hold."""
MAX_COLUMN_IDS = 20_000
"""The most in a call by column: admission, first readings, activity."""
TIMEOUT_S = 20.0
_T = TypeVar("_T")


class PlatformAway(QiluError):
    """The platform did not answer, or not as agreed."""


class NotTaken(PlatformAway):
    """The platform refuses the call (4xx), or does not have it, and would do so again."""


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """Enterprise and place of a unit."""

    enterprise: str
    county: str
    city: str
    industry: str


class UnitRecord(NamedTuple):
    """A registered unit that may speak."""

    class_: str
    owner: Owner
    on_cloud: bool


class Answers(msgspec.Struct, frozen=True, rename={"class_": "class"}):
    """What the platform says of the units that it was asked for, in their order: by each unit its class and
    its owner as places in `classes` and `owners`. Both are -1 for one that may not speak."""

    classes: list[str]
    owners: list[Owner]
    class_: list[int]
    owner: list[int]
    on_cloud: list[bool]

    def records(self) -> list[UnitRecord | None]:
        """One at a time; None for a unit that may not speak."""
        return [
            None if class_ < 0 else UnitRecord(self.classes[class_], self.owners[owner], on_cloud)
            for class_, owner, on_cloud in zip(self.class_, self.owner, self.on_cloud, strict=True)
        ]


class Barred(msgspec.Struct, frozen=True):
    """Who was suspended or retired: to be asked for anew. `next` is where to go on from. Of another `epoch`,
    or with a `next` that lies before where it was asked from, the registry may have gone back."""

    next: int
    units: list[str]
    enterprises: list[str]
    epoch: str = ""


class _FirstReadings(msgspec.Struct):
    counted: int
    already: int
    unknown: list[str]


class PlatformApi:
    """A client of `/v1/ingest`. Opened by `async with`."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._http = PlatformHttp(url, api_key, "ingest", TIMEOUT_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def admission(self, units: Sequence[str]) -> Answers:
        """Which of `units` (at most MAX_COLUMN_IDS) may speak, and what they are."""
        body = msgspec.json.encode({"units": units})
        found = await self._post("/v1/ingest/admission-columns", body, Answers)
        if {len(found.class_), len(found.owner), len(found.on_cloud)} != {len(units)}:
            raise PlatformAway(f"{self._http.url} answered for other units than it was asked for")
        return found

    async def barred(self, after: int | None) -> Barred:
        """Who was barred since; with None nobody, only where to go on from."""
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
        """Report units that are gone, as their edge nodes say."""
        await self._post("/v1/ingest/deaths", msgspec.json.encode({"units": units}), dict[str, object])

    async def problems(self, found: Sequence[msgspec.Struct]) -> None:
        """Report what was wrong with units' readings. Raises NotTaken, also for an older platform."""
        body = msgspec.json.encode({"problems": found})
        await self._send("POST", "/v1/problems", content=body, headers={"Content-Type": "application/json"})

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
