"""Keys and passwords of one stack, made once into a directory: nothing has a default, nothing is shown on a
command line.

The embedded stack keeps its keyring in `--state`; the compose stack's `init` service makes one into a volume.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from qilu_common.broker import SERVICE_USERS
from qilu_common.mosquitto_password import mosquitto_hash

API_KEYS = ("admin", "ingest", "fleet", "viewer")
"""Roles at the platform, each with its own key."""

MQTT_USERS = SERVICE_USERS
"""Users of the broker with a password."""


class Keyring:
    """The secrets in `directory`, one per file with mode 0600."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self) -> None:
        """Create missing secrets and keep existing ones."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for role in API_KEYS:
            self._make_once(self.key_file(role), f"qilu_{secrets.token_urlsafe(32)}")
        for user in MQTT_USERS:
            self._make_once(self.password_file(user), secrets.token_urlsafe(24))

    def key_file(self, role: str) -> Path:
        return self.directory / f"{role}.key"

    def password_file(self, user: str) -> Path:
        return self.directory / f"mqtt-{user}.password"

    def key(self, role: str) -> str:
        return self.key_file(role).read_text(encoding="utf-8").strip()

    def password(self, user: str) -> str:
        return self.password_file(user).read_text(encoding="utf-8").strip()

    def mosquitto_passwords(self) -> str:
        """The broker's password file: hashes only."""
        return "".join(f"{user}:{mosquitto_hash(self.password(user))}\n" for user in MQTT_USERS)

    @staticmethod
    def _make_once(path: Path, value: str) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(value + "\n")
