"""The run's clock, kept in the state file. After a restart, readings of the run's present come again before
the broker says how late the run has it, and must not pass for readings of the future.
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
    """`heard_ms` is the wall's time at which it was heard; in the caller's transaction."""
    connection.execute("REPLACE INTO run_clock VALUES (1, ?, ?, ?)", (clock.now, clock.speed, heard_ms))


def load(connection: sqlite3.Connection, into: JudgingClock) -> None:
    """What an earlier process heard last, if any."""
    row = connection.execute("SELECT now_ms, speed, heard_ms FROM run_clock").fetchone()
    if row is not None:
        now_ms, speed, heard_ms = row
        into.hear(RunClock(now_ms, speed), heard_ms)
