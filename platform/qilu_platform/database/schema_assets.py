"""The tables of data assets, beside those of `schema.py`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, String, Table, Text

from qilu_platform.database.schema import ID, metadata

# Data products: see `assets/products.py`. A version never changes.
data_products = Table(
    "data_products",
    metadata,
    Column("id", ID, primary_key=True),
    Column("version", ID, primary_key=True),
    Column("owner", ID, ForeignKey("enterprises.id"), nullable=False),
    Column("dataset", String(80), nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("terms", Text, nullable=False),
    Column("licence", Text, nullable=False),
    Column("from_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger),  # null: no end
    Column("registered_ms", BigInteger, nullable=False),
)
