"""Alembic runs this. It works in the transaction of the connection it is given, so that a step is done wholly
or not at all."""

from __future__ import annotations

from alembic import context

from qilu_platform.database import schema_assets, schema_gateways  # noqa: F401  # their tables are in `metadata`
from qilu_platform.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
