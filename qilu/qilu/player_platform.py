"""The platform calls of a run that is played into a platform."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx2
import msgspec
from qilu_common.platform_http import PlatformAway, PlatformError, PlatformHttp
from qilu_contract.errors import ConfigError, QiluError

from qilu.replay import Line
from qilu.replay_counts import Counts, counted

BULK_LINES = 10_000
ENDINGS = 5_000
CALL_TIMEOUT_S = 120.0
TELL_TIMEOUT_S = 5.0
AWAY_S = 180.0
"""Time that the platform may be unavailable before the run gives up."""


@dataclass(frozen=True, slots=True)
class Target:
    """Target of a run. `key` is an API key of role operator."""

    platform: str
    broker: str
    key: str | None


class Platform:
    """The platform calls of a run; each is idempotent, and repeated while the platform is unavailable."""

    def __init__(self, target: Target) -> None:
        self._http = PlatformHttp(target.platform, target.key, "operator", CALL_TIMEOUT_S)

    async def close(self) -> None:
        await self._http.close()

    async def counts(self) -> Counts:
        return counted((await self._call("GET", "/v1/programme")).json())

    async def create(self, book: str, line: Line) -> None:
        await self._call("POST", f"/v1/{book}", content=msgspec.json.encode(line), type_="application/json")

    async def bulk(self, book: str, lines: Sequence[Line]) -> None:
        rest = iter(lines)
        while chunk := list(islice(rest, BULK_LINES)):
            body = msgspec.json.Encoder().encode_lines(chunk)
            answer = (await self._call("POST", f"/v1/{book}/bulk", content=body)).json()
            if answer["errors"]:
                self._refused(book, len(answer["errors"]), answer["errors"][0]["detail"])

    async def load(self, book: str, columns: Sequence[str], lines: bytes) -> None:
        """Import CSV lines as a file, which is the fastest way."""
        body = (",".join(columns) + "\n").encode() + lines
        sent = await self._call("POST", f"/v1/imports?book={book}", content=body, type_="text/csv")
        job = sent.json()
        if job["bad"]:
            errors = await self._call("GET", job["errors"])
            first = msgspec.json.decode(errors.content.split(b"\n")[0])
            self._refused(book, job["bad"], first["reason"])

    async def tell(self, standing: dict[str, Any]) -> None:
        """Tell viewers the progress of the run. A platform that does not answer is no trouble."""
        with suppress(PlatformError):
            await self._http.send("PUT", "/v1/programme/replay", json=standing, timeout=TELL_TIMEOUT_S)

    async def wishes(self) -> dict[str, Any] | None:
        """The wishes of viewers; None while the platform does not answer."""
        try:
            answer = await self._http.send("GET", "/v1/programme/replay")
        except PlatformError:
            return None
        wanted: dict[str, Any] = answer.json()["wanted"]
        return wanted

    async def ask_pause(self, paused: bool) -> None:
        """Ask for what a viewer may ask for."""
        with suppress(PlatformError):
            await self._http.send("POST", f"/v1/programme/replay/{'pause' if paused else 'resume'}")

    async def end(self, contracts: Sequence[str]) -> None:
        rest = iter(contracts)
        while chunk := list(islice(rest, ENDINGS)):
            body = msgspec.json.encode({"contracts": chunk})
            await self._call("POST", "/v1/contracts/end", content=body, type_="application/json")

    def _refused(self, book: str, number: int, why: str) -> None:
        raise ConfigError(
            f"{self._http.url} refuses {number} {book} ({why}): play into an empty platform, or into the one "
            "that this run began with."
        )

    async def _call(
        self, method: str, path: str, *, content: bytes | None = None, type_: str = "application/x-ndjson"
    ) -> httpx2.Response:
        headers = {"Content-Type": type_} if method == "POST" else {}
        try:
            return await self._http.send_patiently(AWAY_S, method, path, content=content, headers=headers)
        except PlatformAway as error:
            raise QiluError(f"{error} The same command continues the run.") from error
