"""DuckDB as the embedded store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from qilu_contract.errors import ConfigError

if TYPE_CHECKING:
    from qilu_stores.duck.store import DuckStore


def open_url(url: str, token: str | None) -> DuckStore | None:
    """The store of `duckdb:///path`; None for a URL without a path. It needs no token. Raises ConfigError."""
    parts = urlsplit(url)
    # Like SQLAlchemy's: three slashes for a relative path, four for an absolute one.
    path = parts.path[1:]
    if parts.netloc or not path:
        return None
    try:
        from qilu_stores.duck.store import DuckStore
    except ModuleNotFoundError as error:
        raise ConfigError(f"{url} needs DuckDB: install clouds-in-qilu[stack].") from error
    if Path(path).is_dir():
        raise ConfigError(f"--store {url} is a folder: name a file in it.")
    return DuckStore(path)
