"""Stores for readings: embedded DuckDB on one machine, or any InfluxDB. Both pass the same contract test
suite."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from qilu_common.influx_address import InfluxAddress, without_password
from qilu_contract.errors import ConfigError
from qilu_contract.store import Store

__all__ = ["open_store"]


def open_store(url: str, token: str | None = None) -> Store:
    """The store that `url` names: `duckdb:///path`, `influxdb://host:8086/database` or `influxdbs://…` for
    TLS, the latter two with `user:password@` before the host where InfluxDB 1.x has users.

    Opens nothing. Raises ConfigError for a URL that names no store.
    """
    parts = urlsplit(url)
    if parts.scheme == "duckdb" and not parts.netloc and len(parts.path) > 1:
        try:
            from qilu_stores.duck.store import DuckStore
        except ModuleNotFoundError as error:
            raise ConfigError(f"{url} needs DuckDB: install clouds-in-qilu[stack].") from error
        if Path(parts.path[1:]).is_dir():
            raise ConfigError(f"--store {url} is a folder: name a file in it.")
        # Like SQLAlchemy's: three slashes for a relative path, four for an absolute one.
        return DuckStore(parts.path[1:])
    address = InfluxAddress.parse(url)
    if address is not None:
        from qilu_stores.influx.store import InfluxStore

        if token and not (token.isascii() and token.isprintable()) and address.log_in(token) is None:
            raise ConfigError("QILU_INFLUX_TOKEN holds characters that no token has: copy it again.")
        return InfluxStore(address, token)
    raise ConfigError(
        f"--store {without_password(url)} names no store: "
        "use duckdb:///path/to/file.duckdb or influxdb://host:8086/database."
    )
