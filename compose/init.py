"""Makes the stack's keys, passwords and certificates once, into the volume at /keys, which nothing
else mounts, and the first rules for edge nodes into the one at /rules.

Every service has a separate volume, here a folder of /run/qilu, with the secrets that it needs: its user
alone can read them, and no other service sees them. Runs as root before everything else; running it again
changes no secret.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from qilu.keyring import Keyring
from qilu.mosquitto import Folders, configuration
from qilu.rabbitmq import definitions
from qilu.rights import dynamic_security
from qilu_common.addresses import BROKER_DEVICES_PORT, BROKER_PORT, BROKER_TLS_PORT
from qilu_common.private_files import write_private
from qilu_platform.broker.authority import Authority
from qilu_platform.broker.rules import write_rules

KEYS = Path("/keys/all")
ROOT = Path("/run/qilu")
RULES = Path("/rules")
BROKER = Folders(keys="/run/qilu/mosquitto", rules="/tmp/rules", data="/mosquitto/data")  # noqa: S108
NODES_LISTENER = (str(BROKER_TLS_PORT), 14_000)
DEVICES_LISTENER = (str(BROKER_DEVICES_PORT), 4_000)
"""Together fewer connections than the open files that docker-compose.yml allows, so that clients that fill
these listeners cannot lock out the gateway."""
PLUGIN = "/usr/lib/mosquitto_dynamic_security.so"
BROKER_NAMES = ["mosquitto", "localhost", "127.0.0.1", "::1"]
"""Names in the broker's certificate, in addition to QILU_MQTTS_HOST."""

# The users that the images run as; InfluxDB and PostgreSQL read their secrets as root, before they step down.
USERS = {
    "mosquitto": 1883,
    "influxdb": 0,
    "postgres": 0,
    "gateway": 10001,
    "devices": 10002,
    "platform": 10003,
    "grafana": 472,
    "rabbitmq": 999,
}
CERTIFIED = ("gateway", "devices", "platform")
"""Services with a certificate for RabbitMQ, each in the folder `…-mqtt`."""
PASSWORDS = (
    *("influxdb-password", "influxdb-admin-token", "postgres-password", "grafana-password"),
    "gateway-endpoint-key",
)


def make_once(path: Path) -> str:
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text(encoding="utf-8")


def certificates(folder: Path, host: str) -> dict[str, dict[str, str]]:
    """The authority's files, which the platform may read, and those of the broker's TLS listener."""
    authority = Authority.open(folder / "ca")
    authority.ensure_server(folder / "broker", list(dict.fromkeys([host, *BROKER_NAMES])))
    broker = _texts(folder / "broker", "server.key", "server.crt", "ca.crt")
    return {"platform": _texts(folder / "ca", "ca.key", "ca.crt"), "mosquitto": broker}


def first_rules(rules: Path, folder: Path) -> None:
    """Initial rules: no node may publish, and none is revoked; from then on the platform keeps both files up
    to date."""
    if not (rules / "crl.pem").exists():
        write_rules(rules, Authority.open(folder / "ca"), [], [])
    (rules / "devices.passwords").touch()  # a folder of an earlier version lacks it


def files(keyring: Keyring, host: str) -> dict[str, dict[str, str]]:
    """Files that each service may read, by file name."""
    tls = certificates(keyring.directory, host)
    own = {name: make_once(keyring.directory / name) for name in PASSWORDS}
    operator = keyring.password("operator")
    return {
        "mosquitto": {
            **tls["mosquitto"],
            "passwords": keyring.mosquitto_passwords(),
            "services.json": dynamic_security(),
            "mosquitto.conf": configuration(
                BROKER, str(BROKER_PORT), PLUGIN, NODES_LISTENER, DEVICES_LISTENER
            ),
            "operator.password": operator,
            # For the health check: mosquitto_sub reads its log-in from here, not from a command line.
            "mosquitto_sub": f"-u operator\n-P {operator}\n",
        },
        "influxdb": {"password": own["influxdb-password"], "admin-token": own["influxdb-admin-token"]},
        "postgres": {"password": own["postgres-password"]},
        "platform": {
            **tls["platform"],
            **{f"{role}.key": keyring.key(role) for role in ("admin", "ingest", "fleet", "viewer")},
            "postgres.password": own["postgres-password"],
            "mqtt.password": keyring.password("platform"),
            "gateway.key": own["gateway-endpoint-key"],
        },
        "gateway": {
            "ingest.key": keyring.key("ingest"),
            "mqtt.password": keyring.password("gateway"),
            "endpoint.key": own["gateway-endpoint-key"],
        },
        "devices": {"fleet.key": keyring.key("fleet"), "mqtt.password": keyring.password("devices")},
        "grafana": {"admin.password": own["grafana-password"]},
    }


def of_rabbitmq(folder: Path, nodes: list[str], host: str) -> dict[str, dict[str, str]]:
    """Files for RabbitMQ on these nodes, and for those that connect to it. A password gets a new hash each
    time."""
    authority = Authority.open(folder / "ca")
    authority.ensure_server(folder / "rabbitmq", list(dict.fromkeys([host, *nodes, *BROKER_NAMES[1:]])))
    password, cookie = (make_once(folder / f"rabbitmq-{name}") for name in ("password", "cookie"))
    found = {"rabbitmq": {"definitions.json": definitions(password), "cookie": cookie}}
    found["rabbitmq"] |= _texts(folder / "rabbitmq", "server.key", "server.crt", "ca.crt")
    for service in CERTIFIED:
        authority.ensure_service(folder / f"{service}-mqtt", service)
        found[f"{service}-mqtt"] = _texts(folder / f"{service}-mqtt", "client.key", "client.crt", "ca.crt")
    found["platform-mqtt"]["rabbitmq.password"] = password
    return found


def _texts(folder: Path, *names: str) -> dict[str, str]:
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def main() -> None:
    keyring = Keyring(KEYS)
    keyring.make()
    host = os.environ.get("QILU_MQTTS_HOST", "127.0.0.1")
    everything = files(keyring, host)
    if nodes := os.environ.get("QILU_RABBITMQ_NODES", "").split():
        everything |= of_rabbitmq(keyring.directory, nodes, host)
    for service, contents in everything.items():
        user = USERS[service.removesuffix("-mqtt")]
        folder = ROOT / service
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
        for name, text in contents.items():
            write_private(folder / name, text)
            os.chown(folder / name, user, user)
        os.chown(folder, user, user)
    first_rules(RULES, keyring.directory)
    for path in (RULES, *RULES.iterdir()):
        os.chown(path, USERS["platform"], USERS["platform"])
    RULES.chmod(0o755)  # the broker reads here


if __name__ == "__main__":
    main()
