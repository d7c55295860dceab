"""Reads secrets, each from the variable NAME or the file in NAME_FILE."""

from __future__ import annotations

import os
from pathlib import Path

from qilu_contract.errors import ConfigError


def secret(name: str) -> str | None:
    """The secret from the environment variable `name`, or from the file that `name`_FILE names; None if
    neither is set.

    Raises ConfigError when both are set, when the file cannot be read, or when what is there is empty.
    """
    value, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value is not None and path is not None:
        raise ConfigError(f"{name} and {name}_FILE are both set: keep one.")
    if path is not None:
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"{name}_FILE names {path}, which cannot be read: {error.strerror}.") from error
    if value is None:
        return None
    if not value:
        raise ConfigError(f"{name} is empty: give a value, or unset it.")
    return value
