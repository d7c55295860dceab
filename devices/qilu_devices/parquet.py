"""Ground truth as Parquet files, by DuckDB."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from qilu_contract.errors import ConfigError


def write(target: Path, columns: Mapping[str, NDArray[Any]], query: str) -> Path:
    """Write what `query` makes of the table `given`, of these columns: whole or not at all. Blocks. Raises
    ConfigError when it cannot be written."""
    import duckdb  # only runs that keep a state need it

    scratch = target.with_name(f"{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as connection:
            connection.register("given", dict(columns))
            connection.sql(query).write_parquet(str(scratch))
        os.replace(scratch, target)
    except (OSError, duckdb.IOException) as error:
        raise ConfigError(f"{target} cannot be written: {error}: give another --state folder.") from error
    return target
