"""Dead letters: readings that were not accepted, with the reason. No message that reached the gateway
disappears without a row here.

The functions run in the state file's thread, inside its transaction. Reading works from any process while the
gateway runs.
"""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from qilu_contract.errors import ConfigError, Reason

MAX_ROWS = 1_000_000
MAX_BYTES = 4 * 1024**3
"""Bounds of the table. At either bound the oldest rows are evicted, and their readings are counted as
evicted."""
MAX_KEPT_PAYLOAD = 16 * 1024 * 1024
"""Maximum size of a stored payload: the largest that a gateway can be configured to decode, so that a payload
above the configured limit can be replayed. Longer payloads are truncated, and `payload_bytes` keeps their
true size."""
MOST_LISTED_BYTES = 32 * 1024 * 1024
"""Maximum bytes of payloads per list; large ones make it shorter."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS dead_letters (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest BLOB NOT NULL UNIQUE,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  topic TEXT NOT NULL,
  unit TEXT,
  payload BLOB NOT NULL,
  payload_bytes INTEGER NOT NULL,
  readings INTEGER NOT NULL,
  first_seen_ms INTEGER NOT NULL,
  last_seen_ms INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS dead_letters_evicted (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  readings INTEGER NOT NULL
);
INSERT OR IGNORE INTO dead_letters_evicted VALUES (1, 0);
CREATE TABLE IF NOT EXISTS dead_letters_total (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  letters INTEGER NOT NULL,
  bytes INTEGER NOT NULL
);
INSERT INTO dead_letters_total
  SELECT 1, (SELECT count(*) FROM dead_letters), (SELECT total(length(payload)) FROM dead_letters)
  WHERE NOT EXISTS (SELECT 1 FROM dead_letters_total);
CREATE TRIGGER IF NOT EXISTS dead_letter_added AFTER INSERT ON dead_letters BEGIN
  UPDATE dead_letters_total SET letters = letters + 1, bytes = bytes + length(new.payload);
END;
CREATE TRIGGER IF NOT EXISTS dead_letter_gone AFTER DELETE ON dead_letters BEGIN
  UPDATE dead_letters_total SET letters = letters - 1, bytes = bytes - length(old.payload);
END;
"""
# Triggers maintain the totals, so that a start need not count a million letters and a rollback includes them.


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Refused `readings` of one message, for one reason; a message without readings counts as one."""

    reason: Reason
    detail: str
    topic: str
    payload: bytes
    readings: int
    unit: str | None = None
    redelivered: bool = False
    """The message has the DUP flag: an existing row is then the same message's, and is not counted again."""
    replayable: bool = True
    """Otherwise the payload is not kept: on a replay its aliases could have other meanings."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stored dead letter. Equal messages refused for the same reason share a row, which counts them."""

    id: int
    reason: str
    detail: str
    topic: str
    unit: str | None
    payload: bytes
    payload_bytes: int
    readings: int
    first_seen_ms: int
    last_seen_ms: int

    @property
    def whole(self) -> bool:
        """Whether the payload is complete and can be replayed."""
        return len(self.payload) == self.payload_bytes

    def as_dict(self) -> dict[str, Any]:
        """JSON form, with the payload as text and, exactly, in base64."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content["payload"] = self.payload.decode(errors="backslashreplace")
        content["payload_base64"] = b64encode(self.payload).decode()
        return content


class Bounds:
    """Adds and removes dead letters within the table's bounds; used in the state file's thread."""

    def __init__(self, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> None:
        self._max_rows, self._max_bytes = max_rows, max_bytes

    def add(self, connection: sqlite3.Connection, letters: Iterable[DeadLetter], now_ms: int) -> int:
        """Store the letters; returns how many readings were evicted to make room."""
        for letter in letters:
            payload = letter.payload[: MAX_KEPT_PAYLOAD if letter.replayable else 0]
            known = connection.execute(
                "UPDATE dead_letters SET last_seen_ms = ?, readings = readings + ? WHERE digest = ?",
                (now_ms, 0 if letter.redelivered else letter.readings, _digest(letter)),
            ).rowcount
            if known:
                continue
            connection.execute(
                "INSERT INTO dead_letters (digest, reason, detail, topic, unit, payload, payload_bytes, "
                "readings, first_seen_ms, last_seen_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    _digest(letter),
                    letter.reason,
                    letter.detail,
                    letter.topic,
                    letter.unit,
                    payload,
                    len(letter.payload),
                    letter.readings,
                    now_ms,
                    now_ms,
                ),
            )
        return self._evict(connection)

    def remove(self, connection: sqlite3.Connection, ids: Sequence[int]) -> tuple[int, int]:
        """Delete letters; returns their number and the number of their readings."""
        letters = readings = 0
        for id_ in ids:
            row = connection.execute(
                "DELETE FROM dead_letters WHERE id = ? RETURNING readings", (id_,)
            ).fetchone()
            if row is not None:
                letters, readings = letters + 1, readings + row[0]
        return letters, readings

    def _evict(self, connection: sqlite3.Connection) -> int:
        rows, size = connection.execute("SELECT letters, bytes FROM dead_letters_total").fetchone()
        readings = 0
        while rows > self._max_rows or size > self._max_bytes:
            oldest, length, count = connection.execute(
                "SELECT id, length(payload), readings FROM dead_letters ORDER BY id LIMIT 1"
            ).fetchone()
            connection.execute("DELETE FROM dead_letters WHERE id = ?", (oldest,))
            rows, size, readings = rows - 1, size - length, readings + count
        if readings:
            connection.execute("UPDATE dead_letters_evicted SET readings = readings + ?", (readings,))
        return readings


def _digest(letter: DeadLetter) -> bytes:
    digest = blake2b(digest_size=16)
    for part in (letter.reason.encode(), (letter.unit or "").encode(), letter.topic.encode(), letter.payload):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


@contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the state file `path` of a gateway, running or not. Raises ConfigError if it does not exist."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: give the --state of a gateway that has run.")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        yield connection


def list_rows(
    connection: sqlite3.Connection,
    *,
    reason: Reason | None = None,
    unit: str | None = None,
    id: int | None = None,
    before_id: int | None = None,
    limit: int = 100,
) -> list[Row]:
    """Rows, newest first: at most `limit`, and fewer when they are large. To continue, pass the last row's id
    as `before_id` until no rows are returned."""
    found = connection.execute(
        "SELECT id, reason, detail, topic, unit, payload, payload_bytes, readings, first_seen_ms, "
        "last_seen_ms FROM dead_letters WHERE id < coalesce(:before, 1 << 62) "
        "AND (:reason IS NULL OR reason = :reason) AND (:unit IS NULL OR unit = :unit) "
        "AND (:id IS NULL OR id = :id) ORDER BY id DESC LIMIT :limit",
        {"before": before_id, "reason": reason, "unit": unit, "id": id, "limit": limit},
    )
    rows: list[Row] = []
    listed_bytes = 0
    for values in found:
        row = Row(*values)
        rows.append(row)
        listed_bytes += len(row.payload)
        if listed_bytes > MOST_LISTED_BYTES:
            break
    return rows


def count_readings(connection: sqlite3.Connection) -> dict[Reason, int]:
    """Readings by reason, without reasons that have not occurred."""
    found = connection.execute("SELECT reason, sum(readings) FROM dead_letters GROUP BY reason")
    return {Reason(reason): int(readings) for reason, readings in found}


def evicted_readings(connection: sqlite3.Connection) -> int:
    [readings] = connection.execute("SELECT readings FROM dead_letters_evicted").fetchone()
    return int(readings)
