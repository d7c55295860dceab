"""Makes the stack's keys and passwords once, into the volume that is mounted at /run/qilu.

Every service has a folder there that only its own user can read; `all` keeps what they were made from. Runs
as root before everything else; running it again changes no secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from qilu.keyring import MOSQUITTO_ACL, Keyring, write_private

ROOT = Path("/run/qilu")

# The users that the images run as; InfluxDB and PostgreSQL read their secrets as root, before they step down.
USERS = {
    "mosquitto": 1883,
    "influxdb": 0,
    "postgres": 0,
    "gateway": 10001,
    "devices": 10002,
    "platform": 10003,
    "grafana": 472,
}
PASSWORDS = ("influxdb-password", "influxdb-admin-token", "postgres-password", "grafana-password")


def make_once(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text(encoding="utf-8")


def files(keyring: Keyring) -> dict[str, dict[str, str]]:
    """What each service may read, by file name."""
    own = {name: make_once(keyring.directory / name) for name in PASSWORDS}
    operator = keyring.password("operator")
    return {
        "mosquitto": {
            "passwords": keyring.mosquitto_passwords(),
            "acl": MOSQUITTO_ACL,
            "operator.password": operator,
            # For the health check: mosquitto_sub reads its log-in from here, not from a command line.
            "mosquitto_sub": f"-u operator\n-P {operator}\n",
        },
        "influxdb": {"password": own["influxdb-password"], "admin-token": own["influxdb-admin-token"]},
        "postgres": {"password": own["postgres-password"]},
        "platform": {
            **{f"{role}.key": keyring.key(role) for role in ("admin", "ingest", "fleet", "viewer")},
            "postgres.password": own["postgres-password"],
        },
        "gateway": {"ingest.key": keyring.key("ingest"), "mqtt.password": keyring.password("gateway")},
        "devices": {"fleet.key": keyring.key("fleet"), "mqtt.password": keyring.password("devices")},
        "grafana": {"admin.password": own["grafana-password"]},
    }


def main() -> None:
    keyring = Keyring(ROOT / "all")
    keyring.make()
    for service, contents in files(keyring).items():
        folder = ROOT / service
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, text in contents.items():
            write_private(folder / name, text)
            os.chown(folder / name, USERS[service], USERS[service])
        os.chown(folder, USERS[service], USERS[service])


if __name__ == "__main__":
    main()
