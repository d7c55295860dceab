#!/usr/bin/env bash
# What the README says, on a freshly installed system: `make up` by an ordinary user, its page fetched, a clean stop with nothing
# lost; then `make check` and the unit tests.
#
#   tests/roots/fresh.sh [SUITE...]      trixie (Debian 13, Python 3.13) and bookworm (Debian 12, Python 3.11) unless named
#
# Each system is a debootstrap root in a namespace of its own, made from the mirror that this machine already uses, and deleted
# afterwards. Needs root and debootstrap; without them one sentence says so and nothing is run.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
  echo "Skipped: fresh systems need root and debootstrap (apt-get install debootstrap)."
  exit 0
fi
mirror=${QILU_MIRROR:-$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list* | head -n 1 || true)}
[ -n "$mirror" ] || { echo "Skipped: this machine has no Debian mirror; set QILU_MIRROR."; exit 0; }
work=$(mktemp -d "${QILU_ROOTS:-/var/tmp}/qilu-roots.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

inside() { # ROOT COMMAND: in a chroot whose mounts and processes end with it
  unshare --mount --pid --fork --kill-child bash -c '
    mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mount --make-rslave "$1/dev" &&
    chroot "$1" bash -euo pipefail -c "$2"' - "$1" "$2"
}

for suite in "${@:-trixie bookworm}"; do for suite in $suite; do
  root=$work/$suite
  echo "== $suite: debootstrap"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "${mirror% }" >"$work/$suite.log" 2>&1 ||
    { tail -n 5 "$work/$suite.log"; echo "$suite cannot be made from this machine's mirror."; exit 1; }
  # How this machine reaches its package registries, and whom it trusts.
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  for file in /etc/pip.conf /etc/uv/uv.toml; do [ ! -e "$file" ] || install -D "$file" "$root$file"; done
  git clone --quiet --no-hardlinks . "$root/srv/qilu"
  echo "== $suite: the packages that the README names"
  inside "$root" 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y \
    git make python3 python3-venv >/dev/null 2>&1 && useradd -m me && chown -R me /srv/qilu && python3 --version'
  echo "== $suite: make up"
  inside "$root" 'cd /srv/qilu; runuser -u me -- make up ARGS="--units 100 --for 45s" >/tmp/up.log 2>&1 & up=$!
    until page=$(grep -oE "is up: http://[0-9.:]+" /tmp/up.log | cut -d " " -f 3) && [ -n "$page" ]; do
      kill -0 $up 2>/dev/null || { cat /tmp/up.log; exit 1; }; sleep 0.5; done
    python3 -c "import sys, urllib.request as u; p = u.urlopen(sys.argv[1]).read(); assert b\"<title>\" in p; print(len(p), \"bytes of the page\")" "$page"
    wait $up; tail -n 1 /tmp/up.log; grep -q ", 0 lost;" /tmp/up.log'
  echo "== $suite: make check, and the unit tests"
  inside "$root" 'cd /srv/qilu; runuser -u me -- make check >/tmp/check.log 2>&1 || { tail -n 30 /tmp/check.log; exit 1; }
    runuser -u me -- .venv/bin/pytest tests/unit -x -q -n "${QILU_TEST_PROCESSES:-2}" --dist loadfile'
  rm -rf --one-file-system "$root"
done; done
