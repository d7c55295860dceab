"""The console's files, served from memory: compressed once, and revalidated by their entity tags.

A file server that opens each file in a thread costs a busy process several turns of its threads for each of
the two dozen modules of a page, and the first paint waits for all of them.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

CONSOLE = Path(__file__).parent.parent / "console"
FIRST = ("app.js", "pages/province.js")
"""Modules of the page that most visitors see first."""
_IMPORT = re.compile(r'^(?:import|export)\b[^;"]*?\bfrom "(\.[^"]+)";', re.MULTILINE)
_PLACES = ("<!-- early.js -->", "  <!-- modules -->\n")
"""In index.html: for the script that runs before any other file is there, and for the modules to load."""
_COMPRESSED = 1000
"""Smaller answers gain nothing by compression, in bytes."""


class Asset(NamedTuple):
    body: bytes
    compressed: bytes
    etag: str
    media_type: str

    @classmethod
    def of(cls, body: bytes, media_type: str) -> Asset:
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        return cls(body, gzip.compress(body, 6, mtime=0), etag, media_type)

    def answer(self, asked: Headers, cache: str = "no-cache") -> Response:
        """Unless `cache` differs, the browser asks again each time, because pages and modules of two versions
        must not be mixed; it is answered by 304 while nothing has changed."""
        headers = {"Cache-Control": cache, "ETag": self.etag, "Vary": "Accept-Encoding"}
        if self.etag in asked.get("if-none-match", ""):  # also a weak one, as proxies make it
            return Response(status_code=304, headers=headers)
        body = self.body
        if len(body) >= _COMPRESSED and "gzip" in asked.get("accept-encoding", ""):
            body, headers["Content-Encoding"] = self.compressed, "gzip"
        return Response(body, headers=headers, media_type=self.media_type)


class ConsoleFiles:
    """ASGI application."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"].removeprefix(scope.get("root_path", "")).lstrip("/")
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405)
        asset = file(path)
        if asset is None:
            raise HTTPException(404)
        await asset.answer(Headers(scope=scope))(scope, receive, send)


def file(path: str) -> Asset | None:
    """The file of this path under the console's folder; a changed one is read again."""
    try:
        where = (CONSOLE / path).resolve()
        if not where.is_relative_to(CONSOLE) or not where.is_file():
            return None
        return _read(where, where.stat().st_mtime_ns)
    except (ValueError, OSError):  # a null byte, or a name that is too long
        return None


@lru_cache(maxsize=256)
def _read(where: Path, _changed_ns: int) -> Asset:
    body = where.read_bytes()
    if where.name == "index.html":
        early, preloads = _PLACES
        text = body.decode().replace(early, f"<script>{early_script()}</script>")
        body = text.replace(preloads, "".join(map(_preload, modules(FIRST)))).encode()
    kind = mimetypes.guess_type(where.name)[0] or "application/octet-stream"
    return Asset.of(body, f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)


@cache
def early_script() -> str:
    """The script inside index.html."""
    where = CONSOLE / "early.js"
    return where.read_text(encoding="utf-8") if where.is_file() else ""


def _preload(module: str) -> str:
    return f'  <link rel="modulepreload" href="console/{module}">\n'


def modules(first: tuple[str, ...]) -> list[str]:
    """These modules and all that they import: a browser that is not given them finds them one level at a
    time."""
    found = dict.fromkeys(first)
    for name in (waiting := list(first)):
        for target in _IMPORT.findall((CONSOLE / name).read_text(encoding="utf-8")):
            path = (
                (CONSOLE / name).parent.joinpath(target).resolve().relative_to(CONSOLE.resolve()).as_posix()
            )
            if path not in found:
                found[path] = None
                waiting.append(path)
    return list(found)
