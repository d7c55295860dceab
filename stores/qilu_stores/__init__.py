"""Stores for readings: embedded DuckDB on one machine, or any InfluxDB. Both pass the same contract test
suite."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from qilu_common.influx_address import without_password
from qilu_contract.errors import ConfigError
from qilu_contract.store import Store

__all__ = ["open_store"]


class _Kind(NamedTuple):
    """A kind of store: the folder that implements it, whose `open_url` makes a store of a URL."""

    schemes: tuple[str, ...]
    folder: str
    example: str


KINDS = (
    _Kind(("duckdb",), "duck", "duckdb:///path/to/file.duckdb"),
    _Kind(("influxdb", "influxdbs"), "influx", "influxdb://host:8086/database"),
)


def open_store(url: str, token: str | None = None) -> Store:
    """The store that `url` names: `duckdb:///path`, `influxdb://host:8086/database` or `influxdbs://…` for
    TLS, the latter two with `user:password@` before the host where InfluxDB 1.x has users.

    Opens nothing. Raises ConfigError for a URL that names no store.
    """
    scheme = url.partition("://")[0]
    for kind in KINDS:
        if scheme in kind.schemes:
            # Imported on demand: only the chosen store's packages need to be installed.
            store: Store | None = import_module(f"qilu_stores.{kind.folder}").open_url(url, token)
            if store is not None:
                return store
    raise ConfigError(
        f"--store {without_password(url)} names no store: use {' or '.join(kind.example for kind in KINDS)}."
    )
