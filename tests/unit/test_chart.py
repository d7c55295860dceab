"""The Helm chart in deploy/chart: rendered and linted by Helm, validated against the schemas of Kubernetes,
and compared with the promises of docs/kubernetes.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_stack import services_of
from helm_python import HelmRenderError, HelmValuesError
from helm_python.chart import Chart, lint
from qilu_gateway.service import HAND_OVER_S, STOP_S

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
VERSIONS = ("1.31", "1.34")
"""The oldest that Chart.yaml names, and a recent one."""
OUTSIDE = {
    "postgres": {"enabled": False, "url": "postgresql://qilu@db.example.org/qilu", "secret": "db"},
    "influxdb": {"enabled": False, "url": "https://influx.example.org:8086", "secret": "influx"},
}
CLASSES = {"press.yaml": "id: press\n"}
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "servers outside": OUTSIDE,
    "many": {"gateway": {"replicas": 4}, "devices": {"shards": 8, "units": 1_000_000}, "classes": CLASSES},
    "bare": {
        "devices": {"enabled": False},
        "grafana": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "platform": {"replicas": 1},
    },
    "rabbitmq": {"broker": "rabbitmq"},
    "rabbitmq, more": {
        "broker": "rabbitmq",
        "rabbitmq": {"replicas": 5},
        "networkPolicy": {"enabled": False},
    },
    "rabbitmq outside": {"broker": "rabbitmq", "rabbitmq": {"hosts": ["a.example.org", "b.example.org"]}},
    "with a scenario": {"devices": {"scenario": "units: 10\n", "for": "5m"}, "storageClass": "fast"},
}

Documents = list[dict[str, Any]]


def rendered(values: dict[str, Any]) -> Documents:
    with Chart.load(CHART) as chart:
        found = chart.render(values, name="trial", namespace="qilu", revision=1)
    texts = [text for path, text in sorted(found.items()) if not path.endswith("NOTES.txt")]
    return [document for text in texts for document in yaml.load_all(text, yaml.CSafeLoader) if document]


@pytest.fixture(scope="module", params=VALUES)
def documents(request: pytest.FixtureRequest) -> Documents:
    return rendered(VALUES[request.param])


def of_kind(documents: Documents, *kinds: str) -> Iterator[dict[str, Any]]:
    return (each for each in documents if each["kind"] in kinds)


def pods(documents: Documents) -> Iterator[dict[str, Any]]:
    """The specification of each workload's pods."""
    for workload in of_kind(documents, "Deployment", "StatefulSet", "Job"):
        yield workload["spec"]["template"]["spec"]
    for pod in of_kind(documents, "Pod"):
        yield pod["spec"]


def container_of(documents: Documents, part: str) -> dict[str, Any]:
    return next(each for pod in pods(documents) for each in pod["containers"] if each["name"] == part)


def values_of(container: dict[str, Any]) -> dict[str, str]:
    """Its environment, without what the cluster fills in."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_has_nothing_to_object_to(values: dict[str, Any]) -> None:
    report = lint(CHART, values, strict=True, kube_version="v1.34.0")
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


def test_everything_is_valid_for_the_oldest_and_a_recent_kubernetes(documents: Documents) -> None:
    for document in documents:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_every_pod_keeps_to_the_restricted_profile(documents: Documents) -> None:
    """Pod Security "restricted", and read-only file systems besides."""
    for pod in pods(documents):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_says_what_it_needs_and_every_server_how_it_does(documents: Documents) -> None:
    for pod in pods(documents):
        for container in containers(pod):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]
            if "ports" in container:
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), container[
                    "name"
                ]


def test_a_verification_that_passes_leaves_no_pod(documents: Documents) -> None:
    """`helm uninstall` removes no hooks."""
    (pod,) = of_kind(documents, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert "hook-succeeded" in pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(",")


def test_no_server_is_restarted_because_another_one_is_away(documents: Documents) -> None:
    """Ours answer for others in their readiness alone; /healthz of the platform reads the database."""
    for pod in pods(documents):
        for container in pod["containers"]:
            if container["name"] in ("platform", "gateway"):
                assert set(container["livenessProbe"]) & {"httpGet", "exec", "tcpSocket"} == {"tcpSocket"}
                assert set(container["startupProbe"]) & {"httpGet", "exec", "tcpSocket"} == {"tcpSocket"}


def test_only_the_job_that_makes_the_secrets_may_speak_to_the_cluster(documents: Documents) -> None:
    with_token = [pod for pod in pods(documents) if pod["automountServiceAccountToken"]]
    assert [pod["serviceAccountName"] for pod in with_token] == ["trial-qilu-keys"]
    (role,) = of_kind(documents, "Role")
    for rule in role["rules"]:
        assert set(rule["verbs"]) <= {"create", "get", "patch"}
        assert rule["verbs"] == ["create"] or rule["resourceNames"]


def test_no_secret_is_in_the_chart(documents: Documents) -> None:
    assert list(of_kind(documents, "Secret")) == []
    for pod in pods(documents):
        for container in containers(pod):
            for variable in container.get("env", []):
                assert not re.search(r"(PASSWORD|TOKEN|KEY)$", variable["name"]), variable


def test_what_is_mounted_is_there(documents: Documents) -> None:
    """Config maps and claims by name; Secrets are those that the job makes, or that the user names."""
    maps = {each["metadata"]["name"] for each in of_kind(documents, "ConfigMap")}
    claims = {each["metadata"]["name"] for each in of_kind(documents, "PersistentVolumeClaim")}
    (role,) = of_kind(documents, "Role")
    made = {name for rule in role["rules"] for name in rule.get("resourceNames", [])} | {"db", "influx"}
    for pod in pods(documents):
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims
            if "secret" in volume:
                assert volume["secret"]["secretName"] in made


def test_every_service_and_policy_finds_its_pods(documents: Documents) -> None:
    labels = [
        workload["spec"]["template"]["metadata"]["labels"]
        for workload in of_kind(documents, "Deployment", "StatefulSet", "Job")
    ]

    def selects(wanted: dict[str, str]) -> bool:
        return any(wanted.items() <= each.items() for each in labels)

    for service in of_kind(documents, "Service"):
        assert selects(service["spec"]["selector"]), service["metadata"]["name"]
    for budget in of_kind(documents, "PodDisruptionBudget"):
        assert selects(budget["spec"]["selector"]["matchLabels"]), budget["metadata"]["name"]


def test_every_pod_has_a_policy(documents: Documents) -> None:
    policies = [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(documents, "NetworkPolicy")]
    for workload in of_kind(documents, "Deployment", "StatefulSet", "Job") if policies else ():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert [each for each in policies if each.items() <= labels.items()], workload["metadata"]["name"]


def test_gateways_and_edge_nodes_agree_on_the_shards_whatever_the_number_of_gateways() -> None:
    found = {pod["containers"][0]["name"]: pod["containers"][0] for pod in pods(rendered(VALUES["many"]))}
    assert found["gateway"]["args"][-2:] == ["--shards", "16"]
    assert "--gateways 16 " in found["devices"]["args"][0]


def test_the_platform_reaches_the_dead_letters_of_every_gateway() -> None:
    documents = rendered(VALUES["many"])
    found = {pod["containers"][0]["name"]: pod["containers"][0] for pod in pods(documents)}
    environment = {each["name"]: each.get("value") for each in found["platform"]["env"]}
    (gateway,) = (each for each in of_kind(documents, "StatefulSet") if "gateway" in each["metadata"]["name"])
    name, service = gateway["metadata"]["name"], gateway["spec"]["serviceName"]
    assert json.loads(environment["QILU_PLATFORM_GATEWAYS"]) == [
        f"http://{name}-{number}.{service}:8081" for number in range(4)
    ]
    for part in ("platform", "gateway"):
        assert "QILU_GATEWAY_KEY_FILE" in {each["name"] for each in found[part]["env"]}


def test_every_address_that_a_pod_is_given_is_that_of_a_service(documents: Documents) -> None:
    """Also those that the platform writes into the bundles of edge nodes and devices."""
    there = {
        (service["metadata"]["name"], port["port"])
        for service in of_kind(documents, "Service")
        for port in service["spec"]["ports"]
    }
    values = [
        variable.get("value", "")
        for pod in pods(documents)
        for container in containers(pod)
        for variable in container.get("env", [])
    ]
    named = re.findall(r"(trial-qilu-[a-z]+)(?:\.qilu\.svc)?:([0-9]+)", "\n".join(values))
    assert {(name, int(port)) for name, port in named} <= there


@pytest.mark.parametrize(("broker", "ports"), [("mosquitto", {"8883", "8884"}), ("rabbitmq", {"8883"})])
def test_bundles_name_the_listeners_of_the_broker(broker: str, ports: set[str]) -> None:
    found = container_of(rendered({"broker": broker}), "platform")
    addresses = [each["value"] for each in found["env"] if "_BROKER_FOR_" in each["name"]]
    assert {address.rsplit(":", 1)[1] for address in addresses} == ports


def test_every_gateway_has_a_state_directory_of_its_own(documents: Documents) -> None:
    (gateway,) = (each for each in of_kind(documents, "StatefulSet") if "gateway" in each["metadata"]["name"])
    (container,) = gateway["spec"]["template"]["spec"]["containers"]
    state = next(each["value"] for each in container["env"] if each["name"] == "QILU_STATE")
    volume = next(each["name"] for each in container["volumeMounts"] if each["mountPath"] == state)
    assert volume in [claim["metadata"]["name"] for claim in gateway["spec"]["volumeClaimTemplates"]]
    assert gateway["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > HAND_OVER_S + STOP_S


def test_another_fleet_is_another_job_and_the_same_fleet_the_same() -> None:
    def job(values: dict[str, Any]) -> str:
        found = (each["metadata"]["name"] for each in of_kind(rendered(values), "Job"))
        return next(name for name in found if "devices" in name)

    assert job({}) == job({"platform": {"replicas": 3}, "gateway": {"replicas": 3}})
    assert job({}) != job({"devices": {"units": 5}})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"gateway": {"replicas": 0}}, "replicas"),
        ({"gateways": {"replicas": 2}}, "gateways"),
        ({"devices": {"units": "many"}}, "units"),
        ({"broker": "kafka"}, "broker"),
        ({"broker": "rabbitmq", "rabbitmq": {"replicas": 2}}, "replicas"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], sentence: str) -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmValuesError, match=sentence):
        chart.validate_schema(values)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"postgres": {"enabled": False}}, "where is the PostgreSQL"),
        ({"influxdb": {"enabled": False}}, "where is the InfluxDB"),
        ({"postgres": {"enabled": False, "url": "postgresql://q@d/q"}}, "postgres.secret: name the Secret"),
    ],
)
def test_a_missing_value_is_asked_for(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HelmRenderError, match=sentence):
        rendered(values)


def test_the_images_are_those_of_the_compose_stack() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for part in ("mosquitto", "postgres", "influxdb", "grafana"):
        assert values[part]["image"] == compose["services"][part]["image"]


def test_the_services_have_the_settings_and_ports_of_the_compose_stack() -> None:
    """Except those that a cluster gives in another way: the rules, a scenario, the state of a slice."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    found = {pod["containers"][0]["name"]: pod["containers"][0] for pod in pods(rendered({}))}
    elsewhere = {"QILU_PLATFORM_BROKER_RULES", "QILU_SCENARIO", "QILU_STATE"}
    for part in ("platform", "gateway", "devices"):
        given = {variable["name"] for variable in found[part]["env"]}
        assert set(compose[part]["environment"]) - given - elsewhere == set(), part
    ports = {int(each.rsplit(":", 1)[1]) for each in compose["mosquitto"]["ports"]}
    assert ports == {each["containerPort"] for each in found["mosquitto"]["ports"]}


def test_rabbitmq_takes_the_place_of_mosquitto_with_the_settings_of_the_compose_stack() -> None:
    compose = services_of("docker-compose.cluster.yml")
    documents = rendered(VALUES["rabbitmq"])
    assert [each for each in documents if "mosquitto" in each["metadata"]["name"]] == []
    for part in ("platform", "gateway", "devices"):
        wanted, given = compose[part]["environment"], values_of(container_of(documents, part))
        assert {name for name, value in wanted.items() if value is not None} <= given.keys(), part
        assert {name for name, value in wanted.items() if value is None}.isdisjoint(given), part
    node = container_of(documents, "rabbitmq")
    assert node["image"] == compose["rabbitmq1"]["image"]
    (settings,) = (
        each["data"] for each in of_kind(documents, "ConfigMap") if "10-rabbitmq.conf" in each["data"]
    )
    for name in ("rabbitmq.conf", "log-in.conf", "advanced.config", "enabled_plugins"):
        (there,) = (text for key, text in settings.items() if key.endswith(name))
        assert there == (ROOT / "deploy" / "rabbitmq" / name).read_text(encoding="utf-8")
    assert values_of(node)["RABBITMQ_ADVANCED_CONFIG_FILE"] == "/qilu/advanced.config"
    auth = {line.split(" = ")[0] for line in settings["30-names.conf"].splitlines() if "auth_http" in line}
    names = (ROOT / "compose" / "rabbitmq.conf").read_text(encoding="utf-8")
    assert auth == {line.split(" = ")[0] for line in names.splitlines() if line.startswith("auth_http")}


@pytest.mark.parametrize("values", ["rabbitmq", "rabbitmq, more"])
def test_services_and_nodes_know_every_node_by_the_name_that_it_has(values: str) -> None:
    documents = rendered(VALUES[values])
    (nodes,) = (each for each in of_kind(documents, "StatefulSet") if "rabbitmq" in each["metadata"]["name"])
    service, number = nodes["spec"]["serviceName"], nodes["spec"]["replicas"]
    names = [f"{nodes['metadata']['name']}-{each}.{service}.qilu.svc" for each in range(number)]
    (settings,) = (
        each["data"] for each in of_kind(documents, "ConfigMap") if "30-names.conf" in each["data"]
    )
    assert re.findall(r"rabbit@(\S+)", settings["30-names.conf"]) == names
    node = values_of(container_of(documents, "rabbitmq"))
    assert node["RABBITMQ_NODENAME"] == f"rabbit@$(POD).{service}.qilu.svc"
    for part in ("platform", "gateway", "devices"):
        assert values_of(container_of(documents, part))["QILU_BROKER"] == "mqtts://" + ",".join(names)
    platform = values_of(container_of(documents, "platform"))
    assert json.loads(platform["QILU_PLATFORM_RABBITMQ"]) == [f"http://{name}:15672" for name in names]
    certificate = next(
        each["value"]
        for pod in pods(documents)
        for container in pod.get("initContainers", [])
        for each in container["env"]
        if each["name"] == "QILU_RABBITMQ_NODES"
    )
    assert certificate == f"*.{service}.qilu.svc"


def test_a_rabbitmq_outside_gets_its_secret_and_no_pods() -> None:
    documents = rendered(VALUES["rabbitmq outside"])
    assert [
        each
        for each in of_kind(documents, "StatefulSet", "Service")
        if "rabbitmq" in each["metadata"]["name"]
    ] == []
    (role,) = of_kind(documents, "Role")
    assert "trial-qilu-rabbitmq" in [name for rule in role["rules"] for name in rule.get("resourceNames", [])]
    platform = values_of(container_of(documents, "platform"))
    assert platform["QILU_BROKER"] == "mqtts://a.example.org,b.example.org"
    assert platform["QILU_PLATFORM_BROKER_FOR_NODES"] == "a.example.org:8883"


def test_one_node_of_rabbitmq_may_be_away_at_a_time() -> None:
    budgets = of_kind(rendered(VALUES["rabbitmq"]), "PodDisruptionBudget")
    assert [each["spec"]["maxUnavailable"] for each in budgets if "rabbitmq" in each["metadata"]["name"]] == [
        1
    ]


def test_the_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{chart["version"]}"' in project
    assert chart["appVersion"] == chart["version"]
