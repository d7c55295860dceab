"""Ports and names of a stack's parts.

The embedded stack and every command take their defaults from here. docker-compose.yml, `compose/` and
Grafana's data source cannot import Python: `tests/unit/test_stack_settings.py` compares them with this
module.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

BROKER_PORT = 1883
BROKER_TLS_PORT = 8883
BROKER_DEVICES_PORT = 8884
"""TLS for devices that have a password."""
RABBITMQ_DEVICES_PORT = 1884
"""RabbitMQ's listener for them: without TLS, which a proxy adds."""
PLATFORM_PORT = 8000
GATEWAY_PORT = 8081
"""/metrics and /healthz."""
INFLUX_PORT = 8086
GRAFANA_PORT = 3000

DATABASE = "qilu"
"""The InfluxDB bucket (or database) and its organization, and the PostgreSQL database and its user."""

LOCAL_BROKER = f"mqtt://127.0.0.1:{BROKER_PORT}"
LOCAL_BROKER_TLS = f"127.0.0.1:{BROKER_TLS_PORT}"
"""Mosquitto's listener for edge nodes, as they reach it."""
LOCAL_PLATFORM = f"http://127.0.0.1:{PLATFORM_PORT}"
LOCAL_INFLUX = f"influxdb://127.0.0.1:{INFLUX_PORT}/{DATABASE}"


def is_loopback(host: str) -> bool:
    """Whether a host, by address or as `localhost`, is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_hosts(url: str) -> list[SplitResult]:
    """A URL whose host may be a list, as in `mqtt://me:secret@a,b:1884,[::1]/path`, as one URL for each host;
    the log-in is in the first only. Raises ValueError."""
    # urlsplit knows one host only: from Python 3.13 on it refuses a list that ends with an IPv6 address.
    scheme, marker, rest = url.partition("://")
    host_end = re.search(r"[/?#]|$", rest).start()  # type: ignore[union-attr]  # $ is always there
    log_in, at, hosts = rest[:host_end].rpartition("@")
    return [
        urlsplit(f"{scheme}{marker}{f'{log_in}{at}' if place == 0 else ''}{host}{rest[host_end:]}")
        for place, host in enumerate(hosts.split(","))
    ]
