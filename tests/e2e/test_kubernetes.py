"""The chart on a real Kubernetes, as docs/kubernetes.md tells it: installed with its defaults, with faults,
with another number of gateways and new pods while readings arrive, and removed. The tests are steps of one
story.

Run by `make test-kubernetes`; QILU_KUBERNETES_FAULTS_S asks for another time of faults than five minutes.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helm_python import HelmError
from kubernetes_cluster import Cluster, Failed, eventually

MISSING = os.environ.get("QILU_KUBERNETES_MISSING", "needs a separate Kubernetes: make test-kubernetes")
pytestmark = pytest.mark.skipif("QILU_KUBERNETES" not in os.environ, reason=MISSING)
FAULTS_S = float(os.environ.get("QILU_KUBERNETES_FAULTS_S", "300"))
ROOT = Path(__file__).parents[2]
CHART = str(ROOT / "deploy" / "chart")
UNITS = 1000
FEW_UNITS = 100
SEED = 20261127
SELECT = "app.kubernetes.io/instance=qilu"
WORKLOADS = (
    "deployment/qilu-qilu-platform",
    "statefulset/qilu-qilu-gateway",
    "statefulset/qilu-qilu-mosquitto",
    "statefulset/qilu-qilu-influxdb",
    "statefulset/qilu-qilu-postgres",
    "statefulset/qilu-qilu-grafana",
)


class Release:
    """The chart, installed under the name `qilu` in a namespace, which is the current one from then on."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.helm = cluster.helm(namespace)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": namespace, "labels": labels}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        cluster.kubectl("config", "set-context", "--current", f"--namespace={namespace}")

    def upgrade(self, **values: dict[str, Any]) -> None:
        """With these values in addition to those of before."""
        self.helm.upgrade(CHART, "qilu", values, reuse_values=True)

    def pods(self, part: str | None = None) -> list[dict[str, Any]]:
        select = SELECT if part is None else f"{SELECT},app.kubernetes.io/component={part}"
        return self.cluster.get("pods", "-l", select)

    def is_up(self) -> bool:
        """Whether all pods of all workloads are ready, and of the version that was asked for last."""
        for workload in self.cluster.get("deployments,statefulsets", "-l", SELECT):
            wanted, found = workload["spec"]["replicas"], workload["status"]
            counts = [found.get(name, 0) for name in ("replicas", "readyReplicas", "updatedReplicas")]
            if (
                found.get("observedGeneration") != workload["metadata"]["generation"]
                or counts != [wanted] * 3
            ):
                return False
        return True

    def wait_until_up(self) -> None:
        try:
            eventually(self.is_up, "every workload is ready")
        except AssertionError:
            print(self.describe())  # noqa: T201
            raise

    def describe(self) -> str:
        """Pods, events and logs, for a failure."""
        texts = [self.cluster.kubectl("get", "pods,pvc,jobs", "-o", "wide")]
        texts.append(self.cluster.kubectl("get", "events", "--sort-by=.lastTimestamp")[-6000:])
        for pod in self.pods():
            name = pod["metadata"]["name"]
            try:
                words = ["logs", name, "--all-containers", "--prefix", "--tail=15"]
                texts.append(self.cluster.kubectl(*words))
            except Failed as failed:
                texts.append(str(failed))
        return "\n".join(texts)

    def api(self) -> httpx.Client:
        (service,) = self.cluster.get("services", "--field-selector=metadata.name=qilu-qilu-platform")
        address, (port,) = service["spec"]["clusterIP"], service["spec"]["ports"]
        return httpx.Client(base_url=f"http://{address}:{port['port']}", timeout=30, trust_env=False)

    def on_cloud(self) -> int:
        """Units that the page counts."""
        try:
            with self.api() as api:
                answer = api.get("/v1/programme").raise_for_status().json()
        except httpx.HTTPError:
            return -1
        return int(next(one["onboarded"] for one in answer["targets"] if one["name"] == "units_on_cloud"))

    def shards(self) -> dict[str, int]:
        """Number of shards that each gateway serves without trouble, by pod."""
        found = {}
        for pod in self.pods("gateway"):
            try:
                url = f"http://{pod['status']['podIP']}:8081/healthz"
                shards = httpx.get(url, timeout=5, trust_env=False).json()["shards"]
            except (httpx.HTTPError, KeyError):
                continue
            found[pod["metadata"]["name"]] = sum(not troubles for troubles in shards.values())
        return found

    def stop_fleet(self) -> None:
        self.upgrade(devices={"enabled": False})
        eventually(lambda: not self.pods("devices"), "the fleet has stopped")

    def verified(self) -> bool:
        """Whether `qilu verify` finds nothing lost and nothing twice."""
        try:
            self.helm.test("qilu", timeout=600)
        except HelmError as failed:
            print(failed, self.cluster.kubectl("logs", "qilu-qilu-verify"))  # noqa: T201
            return False
        return True

    def uninstall(self) -> None:
        """And finds nothing of it but its volumes."""
        cluster = self.cluster
        claims = {each["metadata"]["name"] for each in cluster.get("pvc")}
        self.helm.uninstall("qilu")
        words = cluster.kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
        kinds = [kind for kind in words if kind.split(".")[0] not in ("events", "persistentvolumeclaims")]

        def left() -> list[str]:
            found = json.loads(cluster.kubectl("get", ",".join(kinds), "-o", "json"))["items"]
            names = [f"{each['kind']} {each['metadata']['name']}" for each in found]
            made = {"ServiceAccount default", "ConfigMap kube-root-ca.crt"}  # by the cluster
            return sorted(set(names) - made)

        eventually(lambda: not left(), "everything is gone")
        assert {each["metadata"]["name"] for each in cluster.get("pvc")} == claims

    def share(self, gateways: int) -> bool:
        found = self.shards()
        return len(found) == gateways and sum(found.values()) == 16 and min(found.values()) > 0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    where = [Path(os.environ[name]) for name in ("QILU_KUBERNETES", "QILU_KUBERNETES_FOLDER")]
    made = Cluster(where[0], where[1], os.environ["QILU_KUBERNETES_GROUP"])
    try:
        made.start()
        yield made
    except (Failed, AssertionError):
        print(made.logs())  # noqa: T201
        raise
    finally:
        made.stop()


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Release:
    return Release(cluster, "qilu")


def test_the_chart_installs_with_its_defaults_and_the_page_counts(release: Release) -> None:
    release.helm.install(CHART, "qilu")
    release.wait_until_up()
    eventually(lambda: release.on_cloud() == UNITS, "the page counts the fleet")
    with release.api() as api:
        assert "<html" in api.get("/").text
    eventually(lambda: release.share(2), "two gateways share the shards")


def test_pods_of_every_kind_are_deleted_and_killed_and_come_back(release: Release) -> None:
    """Mosquitto is only deleted: by a kill it forgets what it had not saved, as docs/kubernetes.md says."""
    dice = random.Random(SEED)
    parts = ["platform", "gateway", "devices", "mosquitto", "influxdb", "postgres", "grafana"]
    until_s = time.monotonic() + FAULTS_S
    done: list[str] = []
    while time.monotonic() < until_s or {word.split()[1] for word in done} != set(parts):
        left = [part for part in parts if not any(part in word for word in done)]
        part = dice.choice(left or parts)
        running = [pod for pod in release.pods(part) if pod["status"]["phase"] == "Running"]
        if not running:
            time.sleep(0.5)
            continue
        pod = dice.choice(running)
        way = "delete" if part == "mosquitto" else dice.choice(["delete", "kill"])
        if way == "kill":
            if not release.cluster.kill(pod):
                continue
        else:
            release.cluster.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        done.append(f"{way} {part}")
        time.sleep(dice.uniform(1.0, 8.0))
    print("faults:", ", ".join(done))  # noqa: T201
    release.wait_until_up()
    eventually(lambda: release.share(2), "two gateways share the shards again")


def test_from_two_to_three_gateways_while_readings_arrive(release: Release) -> None:
    release.upgrade(gateway={"replicas": 3})
    release.wait_until_up()
    eventually(lambda: release.share(3), "three gateways share the shards")


def test_every_workload_is_upgraded_while_readings_arrive(release: Release) -> None:
    before = {pod["metadata"]["uid"] for pod in release.pods()}
    for workload in WORKLOADS:
        release.cluster.kubectl("rollout", "restart", workload)
    for workload in WORKLOADS:
        release.cluster.kubectl("rollout", "status", workload, "--timeout=300s", timeout_s=330)
    release.wait_until_up()

    def kept() -> list[str]:
        old = [pod["metadata"]["name"] for pod in release.pods() if pod["metadata"]["uid"] in before]
        return [name for name in old if "devices" not in name and "keys" not in name]

    eventually(lambda: not kept(), "the old pods are gone")  # a rollout does not wait for their end
    eventually(lambda: release.share(3), "three gateways share the shards")


def test_a_drain_is_refused_by_the_disruption_budgets(release: Release) -> None:
    words = ["drain", "node", "--delete-emptydir-data", "--force", "--ignore-daemonsets", "--timeout=40s"]
    with pytest.raises(Failed, match="disruption budget"):
        release.cluster.kubectl(*words, "--pod-selector=app.kubernetes.io/component in (platform, gateway)")
    assert release.on_cloud() == UNITS  # the other platform answers
    release.cluster.kubectl("uncordon", "node")
    release.wait_until_up()
    eventually(lambda: release.share(3), "three gateways share the shards")


def test_nothing_is_lost_and_nothing_is_twice(release: Release) -> None:
    release.stop_fleet()

    # Readings that waited at the broker for a birth that only an ended gateway knew are dead letters.
    replay = (
        'for each in "$QILU_STATE"/shard-*; do qilu gateway dead-letters replay --state "$each" "$@"; done; :'
    )

    def verified() -> bool:
        for pod in release.pods("gateway"):
            words = [
                "exec",
                pod["metadata"]["name"],
                "--",
                "sh",
                "-c",
                replay,
                "replay",
                "--reason",
                "no_birth",
            ]
            release.cluster.kubectl(*words)
        return release.verified()

    eventually(verified, "verified")
    platform = ["exec", "deployment/qilu-qilu-platform", "--"]
    print(release.cluster.kubectl(*platform, "qilu", "platform", "audit"))  # noqa: T201
    assert release.on_cloud() == UNITS


def test_what_is_removed_leaves_nothing_but_its_volumes(release: Release) -> None:
    release.uninstall()


def test_with_rabbitmq_the_loss_of_a_node_costs_no_reading(cluster: Cluster) -> None:
    without = Path(os.environ["QILU_KUBERNETES"]) / "without-rabbitmq"
    if without.exists():
        pytest.skip(f"no RabbitMQ: {without.read_text().strip()}")
    release = Release(cluster, "with-rabbitmq")
    values = {
        "broker": "rabbitmq",
        "devices": {"units": FEW_UNITS},
        "platform": {"replicas": 1},
        "grafana": {"enabled": False},
    }
    release.helm.install(CHART, "qilu", values)
    release.wait_until_up()
    eventually(lambda: release.on_cloud() == FEW_UNITS, "the page counts the fleet")
    eventually(lambda: release.share(2), "two gateways share the shards")

    def running() -> list[str]:
        words = ["exec", "qilu-qilu-rabbitmq-0", "--", "rabbitmqctl", "-q", "cluster_status", "--formatter"]
        try:
            found: list[str] = json.loads(cluster.kubectl(*words, "json"))["running_nodes"]
        except Failed:
            return []
        return found

    eventually(lambda: len(running()) == 3, "three nodes are one cluster")
    for victim in release.pods("rabbitmq")[:2]:
        if victim["metadata"]["name"].endswith("0"):
            cluster.kubectl("delete", "pod", victim["metadata"]["name"])
        else:
            assert cluster.kill(victim)
        eventually(lambda: len(running()) == 3, "three nodes are one cluster again")
        release.wait_until_up()
    eventually(lambda: release.share(2), "two gateways share the shards again")

    release.stop_fleet()
    eventually(release.verified, "verified")
    print(cluster.kubectl("exec", "deployment/qilu-qilu-platform", "--", "qilu", "platform", "audit"))  # noqa: T201
    release.uninstall()
