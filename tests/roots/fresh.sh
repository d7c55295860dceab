#!/usr/bin/env bash
# What the README says, on a freshly installed system, by an ordinary user who may use sudo: `make up`, its page fetched, a clean
# stop with nothing lost; then `make check` and `make test`.
#
#   tests/roots/fresh.sh [SYSTEM...]     trixie (Debian 13, Python 3.13) and bookworm (Debian 12, Python 3.11) unless named;
#                                        ubuntu-like: Debian 12 that calls itself Ubuntu 24.04, with the Python 3.12 in
#                                        $QILU_PYTHON312 (a folder with bin/python3.12), no backports and no Chromium
#   QILU_ROOTS_TESTS=tests/unit          only these tests, instead of all (half an hour a system)
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
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot "$1" bash -euo pipefail -c "$2"' - "$1" "$2"
}

for system in "${@:-trixie bookworm}"; do for system in $system; do
  suite=${system/ubuntu-like/bookworm}
  root=$work/$system
  echo "== $system: debootstrap"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "${mirror% }" >"$work/$system.log" 2>&1 ||
    { tail -n 5 "$work/$system.log"; echo "$system cannot be made from this machine's mirror."; exit 1; }
  # How this machine reaches its package registries, and whom it trusts.
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  for file in /etc/pip.conf /etc/uv/uv.toml; do [ ! -e "$file" ] || install -D "$file" "$root$file"; done
  git clone --quiet --no-hardlinks . "$root/srv/qilu"
  echo "== $system: the packages that the README names"
  inside "$root" 'apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y \
    git make python3 python3-venv sudo >/dev/null 2>&1 && useradd -m me && chown -R me /srv/qilu
    echo "me ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/me'
  if [ "$system" = ubuntu-like ]; then
    cp -a "${QILU_PYTHON312:?names the folder of a Python 3.12}/." "$root/usr/local/"
    echo /usr/local >"$root/etc/ld.so.conf.d/python3.12.conf" && chroot "$root" ldconfig
    # What Ubuntu has otherwise: its name, an older Mosquitto that stays, and Chromium as a snap only.
    sed -i 's/^ID=.*/ID=ubuntu\nID_LIKE=debian/; s/^VERSION_CODENAME=.*/VERSION_CODENAME=noble/' "$root/etc/os-release"
    printf 'Package: chromium\nPin: release *\nPin-Priority: -1\n' >"$root/etc/apt/preferences.d/no-chromium"
  fi
  inside "$root" 'python3 --version'
  echo "== $system: make up"
  inside "$root" 'cd /srv/qilu; runuser -u me -- make up ARGS="--units 100 --for 45s" >/tmp/up.log 2>&1 & up=$!
    until page=$(grep -oE "is up: http://[0-9.:]+" /tmp/up.log | cut -d " " -f 3) && [ -n "$page" ]; do
      kill -0 $up 2>/dev/null || { cat /tmp/up.log; exit 1; }; sleep 0.5; done
    python3 -c "import sys, urllib.request as u; p = u.urlopen(sys.argv[1]).read(); assert b\"<title>\" in p; print(len(p), \"bytes of the page\")" "$page"
    wait $up; tail -n 1 /tmp/up.log; grep -q ", 0 lost;" /tmp/up.log'
  echo "== $system: make check and make test"
  inside "$root" "cd /srv/qilu; runuser -u me -- make check >/tmp/check.log 2>&1 || { tail -n 30 /tmp/check.log; exit 1; }
    runuser -u me -- make test ARGS='-q ${QILU_ROOTS_TESTS:-}'"
  rm -rf --one-file-system "$root"
done; done
