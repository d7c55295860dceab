"""Hashes of passwords, as Mosquitto's password file holds them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

# Mosquitto's own default number of PBKDF2-SHA512 rounds; the passwords are random, so more would protect
# nothing.
_ROUNDS = 101


def mosquitto_hash(password: str) -> str:
    """PBKDF2-SHA512 as `mosquitto_passwd` writes it: $7$rounds$salt$hash."""
    return _hash(password, _ROUNDS, os.urandom(12))


def is_password(password: str, known: str) -> bool:
    """Whether `known` is the hash of this password, as `mosquitto_hash` makes it."""
    _, _, rounds, salt, _ = known.split("$")
    return hmac.compare_digest(_hash(password, int(rounds), base64.b64decode(salt)), known)


def _hash(password: str, rounds: int, salt: bytes) -> str:
    hashed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(hashed).decode()}"
