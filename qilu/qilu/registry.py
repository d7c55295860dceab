"""The platform's registry from the command line: imports that go on after a broken connection, and keys."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from qilu_contract.errors import ConfigError, QiluError

CALL_TIMEOUT_S = 60.0
GIVE_UP_S = 120.0
"""Without any progress: a platform that restarts is back by then."""
RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
_PART = 256 * 1024
_TYPES = {".csv": "text/csv", ".ndjson": "application/x-ndjson", ".jsonl": "application/x-ndjson"}

Progress = Callable[[int], None]
"""Called with how many bytes of the file were sent."""


class _Away(Exception):
    """The platform does not answer now; it may soon."""


def content_type(path: Path) -> str:
    """By the file's name; raises ConfigError for others than .csv, .ndjson, .jsonl, each perhaps with .gz."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in _TYPES:
        raise ConfigError(f"{path} is neither .csv nor .ndjson (nor one of them with .gz): name it so.")
    return _TYPES[suffix]


class Registry:
    """Blocking calls to one platform; opened by `with`. `key` is an API key."""

    def __init__(self, platform: str, key: str | None) -> None:
        self._url = platform.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=self._url, headers=headers, timeout=CALL_TIMEOUT_S, trust_env=False
        )

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **more: Any) -> Any:
        """The answer's content, None if it has none; raises QiluError with the platform's own sentence."""
        try:
            answer = self._send(method, path, **more)
        except _Away as error:
            raise QiluError(str(error)) from error
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **more)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ConfigError(f"--platform {self._url!r} cannot be used: {error}.") from error
        except httpx.TransportError as error:
            raise _Away(f"{self._url} does not answer ({error or type(error).__name__}).") from error
        if answer.status_code in (409, 429, 502, 503, 504) and method in ("GET", "PATCH"):
            raise _Away(_said(answer))
        if answer.status_code in (401, 403):
            raise ConfigError(f"{_said(answer)} The key is taken from QILU_API_KEY.")
        if not answer.is_success:
            raise QiluError(_said(answer))
        return answer

    def open_import(self, book: str) -> str:
        """A new job's id."""
        return str(self.call("POST", "/v1/imports", params={"book": book})["id"])

    def import_file(self, path: Path, job: str, progress: Progress) -> dict[str, Any]:
        """Send a file from where the job stands to its end, and go on by itself when the connection breaks.
        The job as it is then; raises QiluError when the platform refuses it, or is away for two minutes."""
        kind = content_type(path)
        offset, delay_s, deadline_s = -1, RETRY_MIN_S, time.monotonic() + GIVE_UP_S
        while True:
            try:
                stands: dict[str, Any] = self._send("GET", f"/v1/imports/{job}").json()
                if stands["state"] == "done":
                    return stands
                if stands["offset"] > offset:
                    offset, delay_s = stands["offset"], RETRY_MIN_S
                    deadline_s = time.monotonic() + GIVE_UP_S
                headers = {"Content-Type": kind, "Upload-Offset": str(offset)}
                body = _parts(path, offset, progress)
                sent = self._send("PATCH", f"/v1/imports/{job}", content=body, headers=headers)
                done: dict[str, Any] = sent.json()
                return done
            except _Away as error:
                if time.monotonic() > deadline_s:
                    raise QiluError(f"{error} Go on later with --job {job}.") from error
                time.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)

    def write_errors(self, job: str, path: Path) -> None:
        """The job's bad lines as NDJSON."""
        with self._http.stream("GET", f"/v1/imports/{job}/errors") as answer, path.open("wb") as file:
            for part in answer.iter_bytes():
                file.write(part)


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.url} answers {answer.status_code}: is it our platform?"


def _parts(path: Path, offset: int, progress: Progress) -> Iterator[bytes]:
    """The file from `offset` on, which counts bytes before gzip."""
    with path.open("rb") as raw:
        file: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        file.seek(offset)
        while part := file.read(_PART):
            yield part
            progress(raw.tell())
