"""Column types of the migrations. They never change, because a migration always makes the same tables."""

from __future__ import annotations

import sqlalchemy as sa

ID = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")
