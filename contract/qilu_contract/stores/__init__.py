"""Where readings are kept: DuckDB on one machine, any InfluxDB else. Both pass one contract test suite."""

from __future__ import annotations

from qilu_contract.stores.contract import Aggregate, Chunk, PlatformStore, Row, Store, open_store

__all__ = ["Aggregate", "Chunk", "PlatformStore", "Row", "Store", "open_store"]
