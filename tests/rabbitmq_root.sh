#!/usr/bin/env bash
# RabbitMQ 4 for the tests: Debian 13 in a folder of its own, beside the system that runs (root only; some minutes, once).
# Prints the folder. The last line of stderr says what is missing.
set -euo pipefail

cache=${QILU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qilu}
root=$cache/rabbitmq-root
missing() { echo "$1" >&2; exit 3; }

mkdir -p "$cache"
exec 9>"$cache/rabbitmq-root.lock"
flock 9
if [ ! -e "$root/.ready" ]; then
  [ "$(id -u)" = 0 ] || missing "RabbitMQ 4 can only be installed beside the system by root"
  command -v debootstrap >/dev/null || apt-get -qq install -y --no-install-recommends debootstrap >/dev/null 2>&1 ||
    missing "debootstrap is not installed"
  # The mirror that this machine already uses.
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
    awk -v release="$codename" '$2 == release && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || missing "apt knows no mirror of Debian"
  rm -rf "$root.part"
  debootstrap --variant=minbase --include=rabbitmq-server \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$root.part" "$mirror" >"$cache/rabbitmq-root.log" 2>&1 ||
    missing "debootstrap failed: $cache/rabbitmq-root.log"
  rm -rf "$root"
  mv "$root.part" "$root"
  touch "$root/.ready"
fi
echo "$root"
