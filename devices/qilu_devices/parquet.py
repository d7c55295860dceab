"""Parquet files, by DuckDB."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from qilu_common.private_files import replacing
from qilu_contract.errors import ConfigError


def quoted(text: str) -> str:
    """A literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def write(
    target: Path,
    columns: Mapping[str, NDArray[Any]],
    query: str,
    about: Mapping[str, object] | None = None,
) -> Path:
    """Write what `query` makes of the table `given`, of these columns: whole or not at all. `about` becomes
    the file's key-value metadata. Blocks. Raises ConfigError when it cannot be written."""
    import duckdb  # only runs that keep a state need it

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part, duckdb.connect() as connection:
            connection.register("given", dict(columns))
            entries = ", ".join(f"{name}: {quoted(str(value))}" for name, value in (about or {}).items())
            metadata = f", KV_METADATA {{{entries}}}" if entries else ""
            connection.execute(f"COPY ({query}) TO {quoted(str(part))} (FORMAT parquet{metadata})")
    except (OSError, duckdb.IOException) as error:
        raise ConfigError(f"{target} cannot be written: {error}: give another folder.") from error
    return target
