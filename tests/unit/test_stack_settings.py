"""docker-compose.yml and Grafana's data source name the ports, databases and files that the code defines."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml
from qilu.keyring import Keyring
from qilu_common.addresses import (
    BROKER_DEVICES_PORT,
    BROKER_PORT,
    BROKER_TLS_PORT,
    DATABASE,
    GATEWAY_PORT,
    GRAFANA_PORT,
    INFLUX_PORT,
    PLATFORM_PORT,
)
from qilu_common.influx_address import InfluxAddress
from qilu_contract.wire.topics import CLOCK

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))[
    "services"
]
DATA_SOURCE = ROOT / "dashboards" / "provisioning" / "datasources" / "influxdb.yaml"
PORTS = {
    "mosquitto": {BROKER_PORT, BROKER_TLS_PORT, BROKER_DEVICES_PORT},
    "influxdb": {INFLUX_PORT},
    "platform": {PLATFORM_PORT},
    "gateway": {GATEWAY_PORT},
    "grafana": {GRAFANA_PORT},
}


def texts(value: object) -> list[str]:
    """All strings of a YAML value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [str(value)]


def environment(name: str) -> dict[str, str]:
    found: dict[str, str] = SERVICES[name]["environment"]
    return found


def test_every_url_in_docker_compose_has_the_port_of_its_service() -> None:
    """Addresses between containers, and those of the health checks, which are inside one."""
    found = 0
    for name, service in SERVICES.items():
        for text in texts(service):
            for host, port in re.findall(r"\w://(?:\w+@)?([\w.]+):(\d+)", text):
                assert int(port) in PORTS[name if host == "127.0.0.1" else host], (name, text)
                found += 1
    assert found > 10


def test_published_ports_are_the_default_ports_of_the_embedded_stack() -> None:
    published = {
        name: {re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-(\d+)\}:(\d+)", text) for text in service["ports"]}
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert published.keys() == {"mosquitto", "influxdb", "platform", "grafana"}
    for name, matches in published.items():
        assert {tuple(map(int, match.groups())) for match in matches if match is not None} == {
            (port, port) for port in PORTS[name]
        }


def test_services_listen_on_the_default_ports() -> None:
    for name in ("platform", "gateway"):
        assert SERVICES[name]["command"][-2:] == ["--port", str(*PORTS[name])]
    assert f":-{BROKER_TLS_PORT}}}" in environment("platform")["QILU_PLATFORM_BROKER_FOR_NODES"]


@pytest.mark.parametrize("name", ["platform", "gateway"])
def test_containers_use_the_default_database(name: str) -> None:
    address = InfluxAddress.parse(environment(name)["QILU_STORE"])
    assert address is not None
    assert (address.url, address.database) == (f"http://influxdb:{INFLUX_PORT}", DATABASE)


def test_databases_are_made_under_the_default_name() -> None:
    influx = environment("influxdb")
    assert {influx[f"DOCKER_INFLUXDB_INIT_{name}"] for name in ("ORG", "BUCKET")} == {DATABASE}
    setup = " ".join(texts(SERVICES["influx-setup"]["command"]))
    assert set(re.findall(r"--(?:database|org) (\S+)", setup)) == {DATABASE}
    postgres = environment("postgres")
    assert {postgres["POSTGRES_DB"], postgres["POSTGRES_USER"]} == {DATABASE}
    assert environment("platform")["QILU_DB"] == f"postgresql://{DATABASE}@postgres/{DATABASE}"


def test_grafanas_data_source_is_the_same_database() -> None:
    (source,) = yaml.safe_load(DATA_SOURCE.read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == f"http://influxdb:{INFLUX_PORT}"
    assert source["jsonData"]["dbName"] == DATABASE


def test_every_secret_that_a_container_reads_is_made_by_init(tmp_path: Path) -> None:
    init = runpy.run_path(str(ROOT / "compose" / "init.py"))
    keyring = Keyring(tmp_path)
    keyring.make()
    made = init["files"](keyring, "127.0.0.1")
    read = {
        path: (name, path.split("/")[3:])
        for name, service in SERVICES.items()
        for path in texts(service.get("environment", {}))
        if path.startswith("/run/qilu/") and path.count("/") == 4
    }
    tokens = " ".join(texts(SERVICES["influx-setup"]["command"])).split()
    for path, (service, (folder, file)) in read.items():
        if folder == "influx":
            assert file in tokens, path
        else:
            assert folder == service, path
            assert file in made[folder], path
    assert len(read) > 10
    token = yaml.safe_load(DATA_SOURCE.read_text(encoding="utf-8"))["datasources"][0]["secureJsonData"]
    assert "grafana.token" in tokens
    assert "/run/qilu/influx/grafana.token}" in token["httpHeaderValue1"]


def test_the_brokers_health_check_subscribes_to_a_topic_that_exists() -> None:
    assert SERVICES["mosquitto"]["healthcheck"]["test"][-1] == CLOCK
