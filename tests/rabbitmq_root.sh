#!/usr/bin/env bash
# RabbitMQ 4 for the tests: Debian 13's packages, unpacked in a folder beside the system that runs (root only; once).
# Nothing is installed: no package's scripts run. Prints the folder. The last line of stderr says what is missing.
set -euo pipefail

cache=${QILU_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qilu}
root=$cache/rabbitmq-root
missing() { echo "$1" >&2; exit 3; }

# What RabbitMQ's scripts call, beside its own dependencies; the first one has the links such as /bin.
packages=(base-files base-passwd dash bash coreutils sed grep mawk util-linux hostname libc-bin rabbitmq-server)

{ [ "$(id -u)" = 0 ] && unshare --mount true; } 2>/dev/null ||
  missing "RabbitMQ 4 can only be started beside the system by root, with a right to mount"
mkdir -p "$cache"
exec 9>"$cache/rabbitmq-root.lock"
flock 9
if [ ! -e "$root/.ready" ]; then
  command -v apt-get >/dev/null || missing "RabbitMQ 4 comes from Debian 13, and there is no apt-get"
  # The mirror that this machine already uses.
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' |
    awk -v release="$codename" '$2 == release && $3 == "main" { print $1; exit }')
  [ -n "$mirror" ] || missing "apt knows no mirror of Debian"

  part=$root.part
  rm -rf "$part"
  mkdir -p "$part/apt/lists/partial" "$part/apt/archives/partial"
  touch "$part/apt/status" # nothing is installed yet, so apt names every package that is needed
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$part/apt/trixie.list"
  apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$part/apt/trixie.list" -o Dir::Etc::sourceparts=- \
      -o Dir::Etc::preferencesparts=/dev/null -o Dir::Etc::preferences=/dev/null -o Dir::State="$part/apt" \
      -o Dir::State::status="$part/apt/status" -o Dir::Cache="$part/apt" -o APT::Sandbox::User=root \
      -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
  }
  {
    apt update && apt install -y --no-install-recommends --download-only "${packages[@]}"
  } >"$cache/rabbitmq-root.log" 2>&1 || missing "apt cannot download RabbitMQ of Debian 13: $cache/rabbitmq-root.log"
  for package in "$part"/apt/archives/base-files_*.deb "$part"/apt/archives/*.deb; do dpkg-deb -x "$package" "$part"; done
  rm -rf "$part/apt" "$part"/usr/share/{doc,man,locale,info}

  # What the packages' scripts would have made.
  ln -sf dash "$part/usr/bin/sh"
  ln -sf mawk "$part/usr/bin/awk"
  for name in passwd group; do cp "$part/usr/share/base-passwd/$name.master" "$part/etc/$name"; done
  echo 'rabbitmq:*:999:999::/var/lib/rabbitmq:/bin/sh' >>"$part/etc/passwd"
  echo 'rabbitmq:*:999:' >>"$part/etc/group"
  mkdir -p "$part"/{dev,proc,sys,srv,tmp}
  chmod 1777 "$part/tmp"
  chroot "$part" ldconfig
  rm -rf "$root"
  mv "$part" "$root"
  touch "$root/.ready"
fi
echo "$root"
