"""Makes the release's Secrets once: `make_secrets.py keys`, and `make_secrets.py influx`
when InfluxDB is up.

The keyring that they are made from stays on the volume at /keys, which nothing else mounts. So an upgrade
changes no secret, and a release that is installed again over its old volumes finds its keys. Each service has
a separate Secret. All belong to the Job's ServiceAccount and are deleted with the release.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import httpx2

PREFIX = os.environ["QILU_PREFIX"]
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKENS = Path("/keys/influx")


class Cluster:
    """The namespace's Secrets, through the cluster's API."""

    def __init__(self) -> None:
        namespace, token = ((ACCOUNT / name).read_text(encoding="utf-8") for name in ("namespace", "token"))
        server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
        self._http = httpx2.Client(
            base_url=f"{server}/api/v1/namespaces/{namespace}/",
            headers={"Authorization": f"Bearer {token}"},
            verify=str(ACCOUNT / "ca.crt"),
            timeout=30,
            trust_env=False,
        )
        account = self._http.get(f"serviceaccounts/{PREFIX}-keys").raise_for_status().json()
        self._owner = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "name": f"{PREFIX}-keys",
            "uid": account["metadata"]["uid"],
        }

    def put(self, part: str, files: dict[str, str]) -> None:
        """Make the Secret of `part`, or add what it lacks."""
        name = f"{PREFIX}-{part}"
        data = {key: base64.b64encode(text.encode()).decode() for key, text in files.items()}
        found = self._http.get(f"secrets/{name}")
        if found.status_code == 404:
            labels = {"app.kubernetes.io/instance": os.environ["QILU_RELEASE"]}
            body = {
                "metadata": {"name": name, "labels": labels, "ownerReferences": [self._owner]},
                "data": data,
            }
            self._http.post("secrets", json=body).raise_for_status()
            print(f"made {name}")  # noqa: T201
            return
        there = found.raise_for_status().json().get("data", {})
        if missing := {key: value for key, value in data.items() if key not in there}:
            merge = {"Content-Type": "application/merge-patch+json"}
            self._http.patch(f"secrets/{name}", json={"data": missing}, headers=merge).raise_for_status()
            print(f"added {', '.join(missing)} to {name}")  # noqa: T201


def keys(cluster: Cluster) -> None:
    import init  # compose/init.py: it needs the platform's packages

    keyring = init.Keyring(init.KEYS)
    keyring.make()
    host = os.environ["QILU_MQTTS_HOST"]
    everything = init.files(keyring, host)
    if nodes := os.environ.get("QILU_RABBITMQ_NODES", "").split():
        everything |= init.of_rabbitmq(keyring.directory, nodes, host)
    for part, files in everything.items():
        cluster.put(part, files)


def influx(cluster: Cluster) -> None:
    """Two tokens of least rights: gateways write and read, platform and Grafana read."""
    write, read = TOKENS / "write.token", TOKENS / "read.token"
    flags = ["--url", os.environ["QILU_INFLUX_URL"], "--database", os.environ["QILU_INFLUX_DATABASE"]]
    flags += ["--org", os.environ["QILU_INFLUX_ORG"], "--token-file", os.environ["QILU_INFLUX_ADMIN"]]
    flags += ["--write-token-file", str(write), "--read-token-file", str(read), "--wait", "900"]
    subprocess.run([sys.executable, "-m", "qilu_gateway.setup_influx", *flags], check=True)  # noqa: S603
    for part, path in (("influx-gateway", write), ("influx-platform", write), ("influx-grafana", read)):
        cluster.put(part, {"token": path.read_text(encoding="utf-8").strip()})


if __name__ == "__main__":
    {"keys": keys, "influx": influx}[sys.argv[1]](Cluster())
