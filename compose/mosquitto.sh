#!/bin/sh
# Runs Mosquitto, and hands it the rules for edge nodes whenever the platform has written new ones. They are copied,
# because Mosquitto wants rules that nobody else can read.
set -eu
umask 077
rules=${RULES:-/rules}
own=${OWN_RULES:-/tmp/rules}

stamp() { cat "$rules/nodes.acl" "$rules/crl.pem" | cksum; }
take() {
  taken=$(stamp)
  cp "$rules/nodes.acl" "$rules/crl.pem" "$own/"
}

mkdir -p "$own"
take
mosquitto -c "${1:-/mosquitto/config/mosquitto.conf}" &
broker=$!
trap 'kill "$broker"' TERM INT
while kill -0 "$broker" 2>/dev/null; do
  sleep 1 & wait $! || true # a signal ends the wait
  if [ "$(stamp)" != "$taken" ]; then
    take
    kill -HUP "$broker"
  fi
done
wait "$broker"
