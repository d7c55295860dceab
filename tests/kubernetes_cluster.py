"""A Kubernetes of one node for a test: etcd, its control plane, kubelet, kube-proxy, containerd, DNS.

It needs separate network, mount and process namespaces: tests/kubernetes/run.sh makes them, and starts the
test in them.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from helm_python import Config
from kubernetes_names import NameServer

NODE = "10.88.0.1"
"""Address of the node, on the bridge that the pods are on."""
PODS = "10.88.0.0/16"
SERVICES = "10.96.0.0/16"
DOMAIN = "cluster.local"
VOLUMES = 24
PATIENCE_S = 300.0
PAUSE = "docker.io/trial/pause:1"


def eventually(done: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.5)


class Failed(Exception):
    """A command failed; the text is its output."""


class Cluster:
    """`cache`: what tests/kubernetes/run.sh has prepared. `folder`: state and logs, empty at first. `group`:
    name of the control groups that the pods go into."""

    def __init__(self, cache: Path, folder: Path, group: str) -> None:
        self._cache, self._folder, self._group = cache, folder, group
        self._programs = cache / "programs"
        self._debian = self._programs / "debian"
        self._token = secrets.token_urlsafe(16)
        self._config = folder / "kubeconfig"
        self._socket = folder / "containerd.sock"
        paths = [self._programs, self._debian / "usr/bin", self._debian / "usr/sbin"]
        self._environment = {
            **os.environ,
            "PATH": ":".join([*map(str, paths), os.environ["PATH"], "/usr/sbin", "/sbin"]),
            "KUBECONFIG": str(self._config),
        }
        self._servers: dict[str, subprocess.Popen[bytes]] = {}

    # Commands

    def run(self, *words: str, given: str | None = None, timeout_s: float = 300) -> str:
        """Output of a command; raises Failed with it."""
        done = subprocess.run(
            words,
            env=self._environment,
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise Failed(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def kubectl(self, *words: str, given: str | None = None, timeout_s: float = 300) -> str:
        return self.run("kubectl", *words, given=given, timeout_s=timeout_s)

    def helm(self, namespace: str) -> Config:
        """Helm's own engine, for releases of a namespace."""
        return Config(kubeconfig_path=self._config, namespace=namespace)

    def get(self, kind: str, *words: str) -> list[dict[str, Any]]:
        """Objects of the namespace that the commands are for."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, *words, "-o", "json"))["items"]
        return found

    def apply(self, *documents: dict[str, Any]) -> None:
        items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "-f", "-", given=json.dumps(items))

    def kill(self, pod: dict[str, Any]) -> list[int]:
        """SIGKILL to every process of a pod's containers; returns them. Its namespaces stay, so the kubelet
        restarts the containers in the same pod."""
        uid = pod["metadata"]["uid"]
        root = Path("/sys/fs/cgroup/pids")
        root = (root if root.exists() else Path("/sys/fs/cgroup")) / self._group
        killed = []
        for procs in root.glob(f"**/pod{uid}/*/cgroup.procs"):
            for word in procs.read_text().split():
                try:
                    if b"/pause" not in Path(f"/proc/{word}/cmdline").read_bytes():
                        os.kill(int(word), signal.SIGKILL)
                        killed.append(int(word))
                except (FileNotFoundError, ProcessLookupError):
                    continue  # ended by itself
        return killed

    # Start and stop

    def start(self) -> None:
        self._make_network()
        self._write_files()
        self._start_servers()
        eventually(lambda: self._answers("/readyz"), "the API server is ready")
        self._start_node()
        self._import_images()
        NameServer(self._ask, NODE, DOMAIN).start()
        eventually(self._node_is_ready, "the node is ready")
        self._make_volumes()
        eventually(lambda: self.get("serviceaccounts", "-n", "default"), "the controllers run")

    def stop(self) -> None:
        """Ends the servers. Pods end with the process namespace."""
        for server in reversed(self._servers.values()):
            server.kill()
            server.wait()

    def logs(self) -> str:
        """The last lines of each server."""
        texts = []
        for path in sorted(self._folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            texts.append("\n".join([f"--- {path.name}", *lines]))
        return "\n".join(texts)

    def _make_network(self) -> None:
        for words in (
            "ip link set lo up",
            "ip link add node0 type bridge",
            f"ip address add {NODE}/16 dev node0",
            "ip link set node0 up",
            f"ip route add default dev node0 src {NODE}",
            "sysctl -q -w net.ipv4.ip_forward=1",
        ):
            self.run(*words.split())

    def _write_files(self) -> None:
        folder = self._folder
        self.run("openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048")
        (folder / "tokens.csv").write_text(f"{self._token},root,1,system:masters\n")
        (folder / "resolv.conf").write_text("")
        cluster = {"server": "https://127.0.0.1:6443", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "trial", "cluster": cluster}],
            "users": [{"name": "root", "user": {"token": self._token}}],
            "contexts": [{"name": "trial", "context": {"cluster": "trial", "user": "root"}}],
            "current-context": "trial",
        }
        self._config.write_text(json.dumps(config))
        (folder / "kubelet.yaml").write_text(json.dumps(self._kubelet()))
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "node0",
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": str(folder / "addresses"),
                        "ranges": [[{"subnet": PODS, "gateway": NODE}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        (folder / "cni").mkdir()
        (folder / "cni" / "pods.conflist").write_text(json.dumps(network))
        (folder / "containerd.toml").write_text(self._containerd())

    def _kubelet(self) -> dict[str, Any]:
        endpoint = f"unix://{self._socket}"
        for hierarchy in (
            [Path("/sys/fs/cgroup")]
            if Path("/sys/fs/cgroup/cgroup.controllers").exists()
            else Path("/sys/fs/cgroup").iterdir()
        ):
            (hierarchy / self._group).mkdir(exist_ok=True)
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # Nobody else is in this network namespace.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._group}",
            "clusterDNS": [NODE],
            "clusterDomain": DOMAIN,
            "containerRuntimeEndpoint": endpoint,
            "imageServiceEndpoint": endpoint,
            "failSwapOn": False,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "0%",
                "imagefs.available": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": str(self._folder / "pods"),
            "resolvConf": str(self._folder / "resolv.conf"),
            "volumePluginDir": str(self._folder / "plugins"),
        }

    def _containerd(self) -> str:
        runc = self._debian / "usr/sbin/runc"
        return f"""
version = 2
root = "{self._folder}/containerd"
state = "/run/containerd"
[grpc]
  address = "{self._socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{self._debian}/usr/lib/cni"
    conf_dir = "{self._folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{runc}"
"""

    def _start(self, name: str, *flags: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._servers[name] = subprocess.Popen(
                [name, *flags], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _start_servers(self) -> None:
        folder, config = self._folder, f"--kubeconfig={self._config}"
        (folder / "etcd").mkdir()
        self.run("mount", "-t", "tmpfs", "tmpfs", str(folder / "etcd"))
        url = "http://127.0.0.1:2379"
        peers = "http://127.0.0.1:2380"
        self._start(
            "etcd",
            f"--data-dir={folder}/etcd/data",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers={url}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--advertise-address={NODE}",
            f"--cert-dir={folder}/apiserver",
            f"--service-account-key-file={folder}/accounts.key",
            f"--service-account-signing-key-file={folder}/accounts.key",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--token-auth-file={folder}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--kubelet-preferred-address-types=InternalIP",
        )
        eventually(lambda: self._answers("/livez"), "the API server answers")
        self._start(
            "kube-controller-manager",
            config,
            f"--root-ca-file={folder}/apiserver/apiserver.crt",
            f"--service-account-private-key-file={folder}/accounts.key",
            "--leader-elect=false",
        )
        self._start("kube-scheduler", config, "--leader-elect=false")

    def _start_node(self) -> None:
        folder, config = self._folder, f"--kubeconfig={self._config}"
        self._start("containerd", f"--config={folder}/containerd.toml")
        eventually(self._socket.exists, "containerd listens")  # without it the kubelet ends at once
        self._start(
            "kubelet",
            config,
            f"--config={folder}/kubelet.yaml",
            f"--root-dir={folder}/kubelet",
            f"--cert-dir={folder}/kubelet-certificate",
            f"--node-ip={NODE}",
            "--hostname-override=node",
        )
        self._start(
            "kube-proxy",
            config,
            "--hostname-override=node",
            "--proxy-mode=iptables",
            f"--cluster-cidr={PODS}",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--conntrack-tcp-timeout-close-wait=0s",
        )

    def _import_images(self) -> None:
        words = ["ctr", "--address", str(self._socket), "--namespace", "k8s.io", "images", "import"]
        self.run(*words, str(self._cache / "images.tar"), timeout_s=600)
        known = self.run(*words[:-1], "ls", "-q").split()
        for name in known:  # stand-ins, under the names that they stand for
            real = name.removeprefix("docker.io/trial/")
            if real != name and name != PAUSE:
                domain = "docker.io/" if "/" in real else "docker.io/library/"
                self.run(*words[:-1], "tag", "--force", name, domain + real)

    def _make_volumes(self) -> None:
        kind = "volume.kubernetes.io/no-provisioner"
        default = {"storageclass.kubernetes.io/is-default-class": "true"}
        storage = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local", "annotations": default},
            "provisioner": kind.replace("volume.", "", 1),
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}
        volumes = []
        for number in range(VOLUMES):
            path = self._folder / "volumes" / str(number)
            path.mkdir(parents=True)
            specification = {
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "local",
                "local": {"path": str(path)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            }
            metadata = {"name": f"volume-{number}"}
            volumes.append(
                {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": specification}
            )
        self.apply(storage, *volumes)

    # Questions

    def _ask(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        url = f"https://127.0.0.1:6443{path}"
        return httpx.get(url, headers=headers, verify=False, trust_env=False, timeout=10)

    def _answers(self, path: str) -> bool:
        for name, server in self._servers.items():
            assert server.poll() is None, f"{name} ended: {self.logs()}"
        try:
            return self._ask(path).status_code == 200
        except httpx.TransportError:
            return False

    def _node_is_ready(self) -> bool:
        for node in self.get("nodes"):
            found = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
            return found.get("Ready") == "True"
        return False
