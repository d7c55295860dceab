"""Address of the platform."""

from __future__ import annotations

from urllib.parse import urlsplit

from qilu_contract.errors import ConfigError


def platform_url(url: str) -> str:
    """`url` without a slash at its end. Raises ConfigError for what names no host over HTTP."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port, or of brackets
        fits = False
    if not fits:
        raise ConfigError(f"--platform {url!r} is no address: write http://host:8000 or https://host.")
    return url.rstrip("/")
