"""HTTP client for the platform: setup, interpretation of answers, and retries.

Typed clients are built on it: `qilu_platform.client` for people's programs, and those of the gateway, of
equipment and of the programme, which make few calls each and may not import the platform.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import structlog
from qilu_contract.errors import ConfigError, QiluError

from qilu_common.backoff import Backoff
from qilu_common.platform_address import platform_url

log = structlog.get_logger()

CALL_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0
RETRY_MOST_S = 5.0
"""A platform that restarts is asked at least this often."""
BUSY = frozenset({408, 429, 502, 503, 504})
"""Statuses after which the same call may succeed."""


class PlatformError(QiluError):
    """The platform refused a call. `status` is HTTP's; 0 if there was no answer."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


class PlatformAway(PlatformError):
    """The platform does not answer or is busy; the same call may succeed later, after `retry_after_s` if the
    platform sent it."""

    def __init__(self, sentence: str, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(sentence, status)
        self.retry_after_s = retry_after_s


class KeyRefused(PlatformError, ConfigError):
    """The key is unknown or revoked, or its role does not allow the call."""


def client_settings(url: str, key: str | None, timeout_s: float = CALL_TIMEOUT_S) -> dict[str, Any]:
    """Arguments of an `httpx2.Client` or `AsyncClient`. Raises ConfigError for a URL that names no host."""
    return {
        "base_url": platform_url(url),
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx2.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
        "trust_env": False,  # the platform is a neighbour: a proxy from the environment has no business here
    }


@contextmanager
def transport_errors(url: str) -> Iterator[None]:
    """Raises what goes wrong before an answer as PlatformAway, or ConfigError when the URL cannot be used."""
    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise ConfigError(f"--platform {url!r} cannot be used: {error}.") from error
    except httpx2.HTTPError as error:
        raise PlatformAway(
            f"The platform {url} does not answer ({error or type(error).__name__})."
        ) from error


def check(url: str, answer: httpx2.Response, role: str | None = None) -> httpx2.Response:
    """The answer of a call that succeeded. Raises PlatformError with the platform's own sentence. `role`:
    which role the key must have, for the sentence of KeyRefused."""
    status = answer.status_code
    if answer.is_success:
        return answer
    sentence = _detail(answer)
    if status in BUSY:
        raise PlatformAway(sentence, status, _retry_after_s(answer))
    if status in (401, 403):
        advice = f"Set QILU_API_KEY to a key with the role {role}." if role else "The key is in QILU_API_KEY."
        raise KeyRefused(f"The platform {url} refuses our key: {sentence} {advice}", status)
    raise PlatformError(sentence, status)


class PlatformHttp:
    """Calls to one platform with one key, from an event loop. `close` when done."""

    def __init__(self, url: str, key: str | None, role: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.url = platform_url(url)
        self._role = role
        self._http = httpx2.AsyncClient(**client_settings(url, key, timeout_s))

    async def close(self) -> None:
        await self._http.aclose()

    async def send(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send a request once. Raises PlatformError, ConfigError."""
        with transport_errors(self.url):
            answer = await self._http.request(method, path, **more)
        return check(self.url, answer, self._role)

    async def send_patiently(self, patience_s: float, method: str, path: str, **more: Any) -> httpx2.Response:
        """Retry while the platform is unavailable, for `patience_s` seconds. The call must be idempotent.
        Raises PlatformError, ConfigError."""
        loop, backoff = asyncio.get_running_loop(), Backoff(most_s=RETRY_MOST_S)
        deadline_s = loop.time() + patience_s
        waits = False
        while True:
            try:
                return await self.send(method, path, **more)
            except PlatformAway as error:
                if loop.time() > deadline_s:
                    text = f"{error} It has been unavailable for {patience_s:.0f} s: is it running?"
                    raise PlatformAway(text, error.status) from error
                if not waits:
                    log.warning("waiting for the platform", reason=str(error), at_most_s=patience_s)
                    waits = True
                await asyncio.sleep(backoff.delay_s(error.retry_after_s))


def _detail(answer: httpx2.Response) -> str:
    """The sentence in a problem document, else what was answered."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answers {answer.status_code}: is it our platform?"


def _retry_after_s(answer: httpx2.Response) -> float | None:
    """In seconds; a date, which our platform does not send, is ignored."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None
