"""Hashes of passwords, as Mosquitto's password file holds them."""

from __future__ import annotations

import base64
import hashlib
import os

# Mosquitto's own default number of PBKDF2-SHA512 rounds; the passwords are random, so more would protect
# nothing.
_ROUNDS = 101


def mosquitto_hash(password: str) -> str:
    """PBKDF2-SHA512 as `mosquitto_passwd` writes it: $7$rounds$salt$hash."""
    salt = os.urandom(12)
    hashed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(hashed).decode()}"
