#!/usr/bin/env bash
# Runs tests/e2e/test_kubernetes.py with a Kubernetes that is there for it alone: in network, mount and process namespaces
# of its own, on programs and images that are kept in ~/.cache/qilu/kubernetes (or $QILU_CACHE/kubernetes). Arguments go to pytest.
# Root only. Where something is missing the test is skipped, with the reason.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${QILU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qilu}/kubernetes
tests=(.venv/bin/pytest -p no:cacheprovider tests/e2e/test_kubernetes.py -s -rs "$@")

skip() { QILU_KUBERNETES_MISSING=$1 exec "${tests[@]}"; }
[ "$(id -u)" = 0 ] || skip "only root can start a Kubernetes"
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
for step in programs images; do
  "tests/kubernetes/$step.sh" "$cache" 2> >(tee "$cache/$step.log" >&2) || { [ $? = 3 ] && skip "$(tail -n 1 "$cache/$step.log")"; exit 1; }
done

# The kubelet changes these for the whole machine.
kept=(vm.overcommit_memory kernel.panic kernel.panic_on_oops)
mapfile -t values < <(sysctl -n "${kept[@]}")
folder=$(mktemp -d /var/tmp/qilu-kubernetes.XXXXXX)
group=qilu-kubernetes
groups() { if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo "/sys/fs/cgroup/$group"; else ls -d /sys/fs/cgroup/*/ | sed "s|\$|$group|"; fi; }
restore() {
  for place in "${!kept[@]}"; do sysctl -q -w "${kept[$place]}=${values[$place]}" || true; done
  for each in $(groups); do
    [ ! -d "$each" ] || find "$each" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
  rm -rf "$folder"
}
trap restore EXIT

# The shell is the first process of its namespace: when it ends, all others do.
export QILU_KUBERNETES=$cache QILU_KUBERNETES_FOLDER=$folder QILU_KUBERNETES_GROUP=$group
unshare --net --mount --pid --fork --kill-child --mount-proc bash -euc '
  mount --make-rshared /
  mount -t tmpfs tmpfs /run
  code=0
  "$@" || code=$? # no exec: the shell must stay, to collect what its children leave
  exit $code' inside "${tests[@]}"
