#!/usr/bin/env bash
# The programs of Kubernetes, built from Go modules, and those of Debian that it needs, in DIR/programs:
# `tests/kubernetes/programs.sh DIR`. What is there already is kept. Exits with 3 and a sentence where something is missing.
set -euo pipefail
cd "$(dirname "$0")"
to=$1/programs
missing() { echo "$1" >&2; exit 3; }
mkdir -p "$to"

sources=$(cat go.mod go.sum main.go pause/main.go | sha256sum)
if [ "$(cat "$to/sources" 2>/dev/null)" != "$sources" ]; then
  command -v go >/dev/null || missing "Go is not installed"
  release=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\)$/\1/p' go.mod)
  flags="-s -w -X k8s.io/component-base/version.gitVersion=$release"
  echo "Building Kubernetes $release: about ten minutes, once" >&2
  export CGO_ENABLED=0
  go build -trimpath -ldflags "$flags" -o "$to/kubernetes" .
  go build -trimpath -ldflags "-s -w" -o "$to/pause" ./pause
  for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
    ln -sf kubernetes "$to/$name"
  done
  echo "$sources" >"$to/sources"
fi

# Debian's packages are unpacked beside the system: nothing is started, and nothing of the system changes.
if [ ! -e "$to/debian/.ready" ]; then
  command -v apt-get >/dev/null || missing "etcd, containerd and runc come from Debian's packages, and there is no apt-get"
  rm -rf "$to/debian" && mkdir -p "$to/debian"
  (cd "$to/debian" && apt-get -qq -o APT::Sandbox::User=root download etcd-server containerd runc containernetworking-plugins) ||
    missing "apt-get cannot download etcd-server, containerd, runc and containernetworking-plugins"
  for package in "$to"/debian/*.deb; do dpkg-deb -x "$package" "$to/debian"; done
  rm "$to"/debian/*.deb
  touch "$to/debian/.ready"
fi
for name in iptables conntrack ip unshare; do
  command -v "$name" >/dev/null || [ -x "/usr/sbin/$name" ] || missing "$name is not installed"
done
