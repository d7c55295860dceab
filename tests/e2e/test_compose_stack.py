"""The compose stack: what its files promise, and the whole of it, built and run by `docker compose`."""

import gzip
import io
import json
import re
import runpy
import subprocess
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from compose_stack import PATIENCE_S, UNITS, Stack, compose_engine
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.storage import MEASUREMENTS
from qilu_platform.client import Platform, PlatformError

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "compose" / "Dockerfile"
ONE_SHOT = {"init", "influx-setup"}


def compose_file() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return loaded


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in compose_file()["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_every_service_that_stays_has_a_health_check_and_a_memory_limit_and_few_rights() -> None:
    for name, service in compose_file()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name not in ONE_SHOT:
            assert {"healthcheck", "mem_limit", "restart"} <= service.keys(), name


def test_images_are_pinned_by_version_and_the_authoritys_key_is_mounted_where_it_signs() -> None:
    services = compose_file()["services"]
    images = [service["image"] for service in services.values() if not service["image"].startswith("clouds-")]
    assert [image for image in images if not re.search(r":\d+\.\d+(\.\d+)?$", image)] == []
    mounts = {
        name: {volume.split(":")[0] for volume in service.get("volumes", [])}
        for name, service in services.items()
    }
    assert [name for name, mounted in mounts.items() if "keys" in mounted] == ["init"]
    for secret in ("platform-keys", "postgres-keys", "mosquitto-keys", "gateway-keys", "devices-keys"):
        assert {name for name, mounted in mounts.items() if secret in mounted} == {
            "init",
            secret.removesuffix("-keys"),
        }


def test_no_secret_stands_in_the_files() -> None:
    for name, service in compose_file()["services"].items():
        for variable in service.get("environment", {}):
            if re.search("PASSWORD|TOKEN|KEY", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"


def test_the_images_are_made_with_the_same_installer_as_the_developers_environment() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = re.search(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert wanted is not None
    assert f"ARG UV_VERSION={wanted[1]}\n" in DOCKERFILE.read_text(encoding="utf-8")


def test_each_image_is_one_part_and_runs_as_the_user_that_gets_its_secrets() -> None:
    services = compose_file()["services"]
    built = {name: service["build"] for name, service in services.items() if "build" in service}
    assert built.keys() == {"devices", "gateway", "platform"}
    init = runpy.run_path(str(ROOT / "compose" / "init.py"))
    for name, build in built.items():
        assert ROOT / build["dockerfile"] == DOCKERFILE
        assert build["args"] == {"PART": name, "USER_ID": str(init["USERS"][name])}
        assert services[name]["image"] == f"clouds-in-qilu/{name}"


def test_nothing_but_the_built_package_gets_into_an_image() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert not re.search(r"^\s*(COPY|ADD)\b", text, re.MULTILINE)
    assert not re.search(r"PASSWORD|TOKEN|SECRET|_KEY", text)
    # The build context: our packages' folders only, without the files of a running stack.
    first, *rest = [
        line
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert first == "*"
    allowed = {line[1:].partition("/")[0] for line in rest if line.startswith("!")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert allowed <= {line.partition("/")[0] for line in tracked.splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.partition("/")[0] for package in packages} <= allowed
    assert [line for line in tracked.splitlines() if re.search(r"\.(key|crt|pem|password|p12)$", line)] == []


@pytest.fixture(scope="module")
def engine() -> Iterator[dict[str, str]]:
    with compose_engine() as found:
        yield found


@pytest.fixture(scope="module")
def stack(engine: dict[str, str], free_port: Callable[[], int]) -> Iterator[Stack]:
    running = Stack(engine, free_port)
    try:
        running.build()
        running.up()
        running.wait_for((UNITS, UNITS))
        yield running
    finally:
        running.down()


@pytest.mark.compose
def test_every_unit_of_the_fleet_comes_on_cloud_and_has_rows(stack: Stack) -> None:
    found = 0
    for name in CATALOGUE:
        counted = MEASUREMENTS[name].counted_by
        series = stack.rows(f'SELECT count("{counted}") FROM "{name}" GROUP BY "unit"')
        assert all(one["values"][0][1] > 0 for one in series)
        found += len(series)
    assert found >= UNITS
    assert stack.rows('SELECT last("units_registered") FROM "programme" WHERE "scope" = \'province\'')
    assert stack.rows('SELECT last("accepted") FROM "pipeline"')


@pytest.mark.compose
def test_a_device_made_by_hand_is_counted_and_stored(stack: Stack) -> None:
    registered, on_cloud = stack.counts()
    key = stack.key()
    headers = {"Authorization": f"Bearer {key}"}
    works = {"id": "my-works", "name": "My works", "county": "370202", "industry": "C34"}
    motor = {"id": "my-motor", "class": "motor", "enterprise": "my-works"}
    with httpx.Client(base_url=stack.platform, headers=headers, timeout=30.0, trust_env=False) as api:
        assert api.post("/v1/enterprises", json=works).status_code == 201
        assert api.post("/v1/units", json=motor).status_code == 201
        stack.wait_for((registered + 1, on_cloud))
        password = stack.inside("mosquitto", "cat", "/run/qilu/mosquitto/operator.password").strip()
        ts_ms = int(time.time() * 1000)
        reading = json.dumps({"ts": ts_ms, "power_in": 11.2, "speed": 1470})
        topic = "qilu/v1/370202/my-works/my-motor/telemetry"
        login = ["-u", "operator", "-P", password]
        stack.inside("mosquitto", "mosquitto_pub", *login, "-q", "1", "-t", topic, "-m", reading)
        stack.wait_for((registered + 1, on_cloud + 1))
        latest = api.get("/v1/units/my-motor/latest").json()
    assert latest == {"unit": "my-motor", "ts_ms": ts_ms, "values": {"power_in": 11.2, "speed": 1470.0}}
    [series] = stack.rows('SELECT "power_in" FROM "motor" WHERE "unit" = \'my-motor\'')
    assert series["values"] == [[ts_ms, 11.2]]


@pytest.mark.compose
def test_a_device_with_a_certificate_comes_in_by_tls(stack: Stack, tmp_path: Path) -> None:
    with Platform(stack.platform, stack.key()) as api:
        api.create_enterprise("TLS works", "370202", "C34", id="tls-works")
        api.create_unit("motor", "tls-works", id="tls-motor")
        zipfile.ZipFile(io.BytesIO(api.certificate_bundle("tls-works"))).extractall(tmp_path)
        deadline = time.monotonic() + PATIENCE_S
        while True:  # until the broker has the new rules, and the gateway the reading
            script = ["sh", str(tmp_path / "tls-works" / "publish.sh")]
            subprocess.run(script, capture_output=True, timeout=60, check=False)
            try:
                assert api.latest("tls-motor").values
                break
            except PlatformError:
                assert time.monotonic() < deadline
                time.sleep(1)


@pytest.mark.compose
@pytest.mark.parametrize(
    ("service", "secret"),
    [
        ("gateway", "/run/qilu/platform/admin.key"),
        ("devices", "/run/qilu/gateway/mqtt.password"),
        ("mosquitto", "/keys/all"),
        ("grafana", "/run/qilu/influx/platform.token"),
    ],
)
def test_a_service_cannot_read_the_secrets_of_another(stack: Stack, service: str, secret: str) -> None:
    done = stack.compose("exec", "-T", service, "cat", secret)
    assert done.returncode != 0
    assert "ermission denied" in done.stderr or "o such file" in done.stderr


@pytest.mark.compose
def test_even_root_in_a_container_finds_no_secrets_but_its_services_own(stack: Stack) -> None:
    with_tokens = {"platform", "gateway", "grafana"}
    for service in ("mosquitto", "influxdb", "postgres", "platform", "gateway", "devices", "grafana"):
        done = stack.compose("exec", "-T", "-u", "0", service, "ls", "/run/qilu")
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.split()) == {service} | ({"influx"} if service in with_tokens else set())


@pytest.mark.compose
def test_no_secret_stands_in_an_image_in_a_containers_settings_or_in_a_process_list(stack: Stack) -> None:
    services = ("platform", "gateway", "devices", "mosquitto", "influxdb", "postgres", "grafana")
    read = 'cd /run/qilu/$0 && cat $(ls | grep -v -e "[.]crt$" -e "^services.json$")'  # those are no secrets
    read += "; cat /run/qilu/influx/$0.token 2>/dev/null || true"
    texts = [stack.inside(name, "sh", "-c", read, name) for name in services]
    lines = [line.split()[-1] for text in texts for line in text.splitlines() if line.strip()]
    known = {line.encode() for line in lines if len(line) >= 20 and not line.startswith("-----")}
    assert len(known) > len(services)

    def told(data: bytes) -> list[bytes]:
        return [secret for secret in known if secret in data]

    containers = stack.compose("ps", "--all", "--quiet").stdout.split()
    assert len(containers) > len(services)
    assert told(stack.docker("inspect", *containers)) == []
    for container in stack.compose("ps", "--quiet").stdout.split():
        assert told(stack.docker("top", container, "-eo", "pid,args")) == []
    for name in ("platform", "gateway", "devices"):
        with tarfile.open(fileobj=io.BytesIO(stack.docker("save", f"clouds-in-qilu/{name}"))) as image:
            parts = [image.extractfile(part) for part in image if part.isfile()]
            contents = [part.read() for part in parts if part is not None]
        contents = [gzip.decompress(each) if each.startswith(b"\x1f\x8b") else each for each in contents]
        assert any(b"qilu_contract/" in each for each in contents)  # layers can be looked into
        assert [told(each) for each in contents] == [[]] * len(contents)


@pytest.mark.compose
def test_operators_see_what_the_gateway_refused(stack: Stack) -> None:
    password = stack.inside("mosquitto", "cat", "/run/qilu/mosquitto/operator.password").strip()
    send = ["mosquitto_pub", "-u", "operator", "-P", password, "-q", "1"]
    stack.inside("mosquitto", *send, "-t", "qilu/v1/370202/nobody/stranger/telemetry", "-m", "{}")
    headers = {"Authorization": f"Bearer {stack.key()}"}
    deadline = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=stack.platform, headers=headers, timeout=30.0, trust_env=False) as api:
        answer = api.get("/v1/dead-letters/gateways").json()
        assert answer == {"items": [{"gateway": "gateway:8081", "problem": ""}]}
        while not any(one["unit"] == "stranger" for one in api.get("/v1/dead-letters").json()["items"]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        # A unit under the name of another enterprise is a security event of the city that the topic names.
        works = {"id": "robbed-works", "name": "Robbed", "county": "370102", "industry": "C34"}
        assert api.post("/v1/enterprises", json=works).status_code == 201
        motor = {"id": "robbed-motor", "class": "motor", "enterprise": "robbed-works"}
        assert api.post("/v1/units", json=motor).status_code == 201
        topic = "qilu/v1/370202/thief-works/robbed-motor/telemetry"
        stack.inside("mosquitto", *send, "-t", topic, "-m", '{"power_in": 1}')
        events = "/v1/security/events?kind=wrong_topic&city=370200"
        while api.get(events).json()["by_city"] != {"370200": 1}:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.compose
def test_the_broker_wants_a_password(stack: Stack) -> None:
    done = stack.compose("exec", "-T", "mosquitto", "mosquitto_pub", "-t", "qilu/v1/clock", "-m", "x")
    assert done.returncode != 0
    assert "not authori" in done.stderr.lower()


@pytest.mark.compose
def test_grafana_is_up_and_its_password_can_be_read(stack: Stack) -> None:
    health = httpx.get(f"{stack.grafana}/api/health", timeout=30.0, trust_env=False)
    assert health.status_code == 200
    assert stack.inside("grafana", "cat", "/run/qilu/grafana/admin.password").strip()


@pytest.mark.compose
def test_a_stack_that_is_stopped_comes_back_with_what_it_had(stack: Stack) -> None:
    before, key = stack.counts(), stack.key()
    stopped = stack.compose("stop", "--timeout", "30")
    assert stopped.returncode == 0, stopped.stderr
    states = stack.compose("ps", "--all", "--format", "{{.Service}} {{.ExitCode}}").stdout.split("\n")
    ended = dict(line.split() for line in states if line)
    # Grafana's exit code is its own affair.
    assert {service for service, code in ended.items() if code != "0"} <= {"grafana"}
    stack.up()
    assert stack.counts() == before
    assert stack.key() == key
