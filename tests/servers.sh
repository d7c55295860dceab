#!/usr/bin/env bash
# The real servers that the tests run against: Mosquitto >= 2.0.21 and its clients, InfluxDB 1.x, PostgreSQL, nginx, Chromium
# with a font for Chinese; and curl, for the commands of the documentation.
# On Debian and Ubuntu, as root or with passwordless sudo, what is missing is installed from the distribution; anywhere
# else one sentence says what is missing and the tests that need it are skipped. Nothing is left running.
set -u

MOSQUITTO_MIN=2.0.21 # older ones ignore Receive Maximum when a backlog is delivered

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # MINIMUM VERSION
found() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

mosquitto_version() { # of the program that is installed, empty without one
  PATH=$PATH:/usr/sbin mosquitto -h 2>/dev/null | sed -n 's/^mosquitto version \([0-9.]*\).*/\1/p'
}

missing() { # names of the packages that are missing, one a line
  local v
  v=$(mosquitto_version)
  if [ -z "$v" ] || ! at_least "$MOSQUITTO_MIN" "$v"; then echo mosquitto; fi
  { found mosquitto_pub && found mosquitto_sub; } || echo mosquitto-clients
  found influxd || echo influxdb
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || echo postgresql
  found nginx || echo nginx-light
  found curl || echo curl
  found chromium || found chromium-browser || found google-chrome || echo chromium
  /sbin/ldconfig -p | grep -q 'libatomic\.so\.1' || echo libatomic1 # Playwright's Node needs it
  [ -n "$(fc-list :lang=zh 2>/dev/null)" ] || echo fonts-wqy-zenhei # Chinese in the console's pictures
}

tell() { # PACKAGES...: the one sentence
  echo "Missing for the tests: $*; install them (mosquitto $MOSQUITTO_MIN or newer) to run the tests that need them."
}

backports() { # Debian 12's Mosquitto is too old: add its backports from the mirror this machine already uses
  local list=/etc/apt/sources.list.d/qilu-backports.sources suite=$1 uri signed
  [ -e "$list" ] && return 0
  read -r uri signed < <(
    # deb822 files first: the paragraph of the main suite; then one-line files.
    for f in /etc/apt/sources.list.d/*.sources; do
      [ -e "$f" ] && awk -v suite="$suite" 'BEGIN { RS = ""; FS = "\n" } {
        uri = signed = ""; hit = 0
        for (i = 1; i <= NF; i++) {
          n = split($i, w, /[ \t]+/); key = tolower(w[1])
          if (key == "uris:") uri = w[2]
          if (key == "signed-by:") signed = w[2]
          if (key == "suites:") for (j = 2; j <= n; j++) if (w[j] == suite) hit = 1
        }
        if (hit && uri) print uri, signed
      }' "$f"
    done
    for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
      [ -e "$f" ] && awk -v suite="$suite" '$1 == "deb" {
        signed = ""; if (match($0, /signed-by=[^] ]*/)) signed = substr($0, RSTART + 10, RLENGTH - 10)
        sub(/\[[^]]*\] */, ""); if ($3 == suite) print $2, signed
      }' "$f"
    done
  )
  [ -n "${uri:-}" ] || return 1
  {
    printf 'Types: deb\nURIs: %s\nSuites: %s-backports\nComponents: main\n' "$uri" "$suite"
    [ -z "${signed:-}" ] || printf 'Signed-By: %s\n' "$signed"
  } | $SUDO tee "$list" >/dev/null
}

mapfile -t packages < <(missing)
[ ${#packages[@]} = 0 ] && exit 0

SUDO=
[ "$(id -u)" = 0 ] || SUDO='sudo -n'
ID='' ID_LIKE='' VERSION_CODENAME=''
# shellcheck source=/dev/null
[ -r /etc/os-release ] && . /etc/os-release
case " $ID $ID_LIKE " in *' debian '* | *' ubuntu '*) ;; *) tell "${packages[@]}" && exit 0 ;; esac
if ! found apt-get || ! $SUDO true 2>/dev/null; then tell "${packages[@]}" && exit 0; fi

apt() {
  $SUDO env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get -o DPkg::Lock::Timeout=600 -qq "$@" >/dev/null
}

# A server that is installed for the tests must not take a port by itself, now or after a restart of the machine.
policy=/usr/sbin/policy-rc.d
# shellcheck disable=SC2317 # called by the trap
restore() {
  $SUDO rm -f "$policy"
  [ ! -e "$policy.qilu" ] || $SUDO mv "$policy.qilu" "$policy"
}
trap restore EXIT
if [ -e "$policy" ] && [ ! -e "$policy.qilu" ]; then $SUDO mv "$policy" "$policy.qilu"; fi
printf '#!/bin/sh\nexit 101\n' | $SUDO tee "$policy" >/dev/null
$SUDO chmod 755 "$policy"

echo "Installing for the tests: ${packages[*]}"
case "${packages[*]}" in *mosquitto*) [ "$VERSION_CODENAME" != bookworm ] || backports bookworm ;; esac
apt update
for package in "${packages[@]}"; do
  release=()
  case $package in mosquitto*) [ "$VERSION_CODENAME" != bookworm ] || release=(-t bookworm-backports) ;; esac
  apt install -y --no-install-recommends "${release[@]}" "$package" || continue
  [ ! -d /run/systemd/system ] || [[ $package == chromium || $package == fonts-* ]] || $SUDO systemctl disable --quiet "${package%-light}" 2>/dev/null
done

mapfile -t packages < <(missing)
[ ${#packages[@]} = 0 ] || tell "${packages[@]}"
exit 0
