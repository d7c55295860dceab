"""The run's clock in the state file. After a restart, readings of the run's present are redelivered before
the broker sends the clock, and must not be taken for readings from the future.
"""

from __future__ import annotations

import sqlite3

from qilu_contract.wire.clock import JudgingClock, RunClock

SCHEMA = """
CREATE TABLE IF NOT EXISTS run_clock (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  now_ms INTEGER NOT NULL,
  speed REAL NOT NULL,
  heard_ms INTEGER NOT NULL
);
"""


def save(connection: sqlite3.Connection, clock: RunClock, heard_ms: int) -> None:
    """Save the clock in the caller's transaction. `heard_ms` is the wall time of its receipt."""
    connection.execute("REPLACE INTO run_clock VALUES (1, ?, ?, ?)", (clock.now, clock.speed, heard_ms))


def load(connection: sqlite3.Connection, into: JudgingClock) -> None:
    """Load the clock that an earlier process received last, if any."""
    row = connection.execute("SELECT now_ms, speed, heard_ms FROM run_clock").fetchone()
    if row is not None:
        now_ms, speed, heard_ms = row
        into.hear(RunClock(now_ms, speed), heard_ms)
