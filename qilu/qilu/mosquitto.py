"""Mosquitto: detects the installed version, and writes the configuration of the embedded and compose stacks.

Mosquitto before 2.0.21 is refused: with a backlog it ignores how many unacknowledged messages its client
takes, so that a gateway which acknowledges late is disconnected over and over.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qilu_common.broker import MAX_PACKET_BYTES

OLDEST = (2, 0, 21)

# Settings of both listeners, and the log-in of services (docs/decisions/003-brokers.md, 054, 055).
# - per_listener_settings: with `true`, an offline session received nothing.
# - plugin: gives services their rights, which a reload then cannot take from a session; the acl_file has edge
#   nodes, whose rules change at run time.
# - inflight: the gateway's whole receive window.
# - queued: messages for an offline gateway, as much as memory has room for: 1.2 GB at 200 bytes per message.
#   Beyond that Mosquitto acknowledges and drops, and its log reports it (a notice).
# - autosave_interval: every second but one; a kill of the broker loses at most the messages since the last
#   save.
_SERVICES = """\
per_listener_settings false
listener {listener}
plugin {plugin}
plugin_opt_config_file {keys}/services.json
allow_anonymous false
password_file {passwords}
max_packet_size {max_packet}
max_inflight_messages 65535
max_queued_messages 2000000
max_queued_bytes 1073741824
persistence true
persistence_location {data}/
autosave_interval 1
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
"""

# For edge nodes, which authenticate with a certificate. Its common name is user name and client id, so that
# no node can take over another's session. CRL and rules are read again on SIGHUP.
_NODES = """\
listener {listener}
max_connections {most}
cafile {keys}/ca.crt
certfile {keys}/server.crt
keyfile {keys}/server.key
crlfile {rules}/crl.pem
acl_file {rules}/nodes.acl
require_certificate true
use_identity_as_username true
use_username_as_clientid true
"""

# For devices with a password. The user name is the client id, so that no device can take over a session of
# a service, or of another device.
_DEVICES = """\
listener {listener}
max_connections {most}
certfile {keys}/server.crt
keyfile {keys}/server.key
use_username_as_clientid true
"""


@dataclass(frozen=True, slots=True)
class Folders:
    """Directories that Mosquitto reads and writes. `keys`: `services.json`, `ca.crt`, `server.crt`,
    `server.key`, and `passwords` where there are no `rules`; `rules`: `nodes.acl`, `crl.pem`, and the
    `passwords` of services and devices; `data`: its queue."""

    keys: str
    rules: str
    data: str


def configuration(
    folders: Folders,
    listener: str,
    plugin: str,
    nodes: tuple[str, int] | None,
    devices: tuple[str, int] | None = None,
) -> str:
    """The text of `mosquitto.conf`. A listener is a port, perhaps with an address: `1883 127.0.0.1`. `nodes`:
    the listener for edge nodes and the most connections that it takes, `devices`: that for devices with a
    password; None for no such listener."""
    text = _SERVICES.format(
        listener=listener,
        plugin=plugin,
        keys=folders.keys,
        data=folders.data,
        max_packet=MAX_PACKET_BYTES,
        passwords=f"{folders.keys if nodes is None else folders.rules}/passwords",
    )
    if nodes is not None:
        text += _NODES.format(listener=nodes[0], most=nodes[1], keys=folders.keys, rules=folders.rules)
    if devices is not None:
        text += _DEVICES.format(listener=devices[0], most=devices[1], keys=folders.keys)
    return text


@dataclass(frozen=True, slots=True)
class Mosquitto:
    """An installed Mosquitto."""

    path: str
    version: tuple[int, ...]
    plugin: Path | None
    """Its dynamic security plugin."""

    @property
    def flaw(self) -> str:
        """Why it cannot be used, as the rest of a sentence that begins with its name; empty when it can."""
        if self.version < OLDEST:
            return (
                "is older than 2.0.21 and disconnects a gateway that has a backlog; "
                "install a newer one (Debian 12: from bookworm-backports)"
            )
        if self.plugin is None:
            return "lacks mosquitto_dynamic_security.so; install Mosquitto with its dynamic security plugin"
        return ""

    def __str__(self) -> str:
        return f"Mosquitto {'.'.join(map(str, self.version))} at {self.path}"


def find_mosquitto() -> Mosquitto | None:
    """The installed Mosquitto, whatever its version; None if there is none."""
    # Debian keeps it in /usr/sbin, which is not on everybody's path.
    path = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        return None
    banner = subprocess.run([path, "-h"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    found = re.search(r"mosquitto version (\d+)\.(\d+)\.(\d+)", banner)
    return Mosquitto(path, tuple(map(int, found.groups())), _plugin(path)) if found else None


def _plugin(program: str) -> Path | None:
    """Distributions keep it in lib, lib64 or a folder of the architecture's in there."""
    prefix = Path(program).resolve().parents[1]
    name = "mosquitto_dynamic_security.so"
    return next((path for pattern in ("lib*", "lib*/*") for path in prefix.glob(f"{pattern}/{name}")), None)
