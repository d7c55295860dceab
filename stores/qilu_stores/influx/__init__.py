"""InfluxDB 1.x, 2.x and 3.x in one dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qilu_common.influx_address import InfluxAddress
from qilu_contract.errors import ConfigError

if TYPE_CHECKING:
    from qilu_stores.influx.store import InfluxStore


def open_url(url: str, token: str | None) -> InfluxStore | None:
    """The store of an `influxdb://` URL; None for one without a host or database. Raises ConfigError for a
    malformed token."""
    from qilu_stores.influx.store import InfluxStore

    address = InfluxAddress.parse(url)
    if address is None:
        return None
    if token and not (token.isascii() and token.isprintable()) and address.log_in(token) is None:
        raise ConfigError("QILU_INFLUX_TOKEN holds characters that no token has: copy it again.")
    return InfluxStore(address, token)
