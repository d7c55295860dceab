#!/bin/sh
# Runs Mosquitto, and hands it the rules for edge nodes whenever the platform has written new ones. They are copied,
# because Mosquitto wants rules that nobody else can read.
set -eu
umask 077
keys=${KEYS:-/run/qilu/mosquitto}
rules=${RULES:-/rules}
own=${OWN_RULES:-/tmp/rules}

stamp() { cat "$rules/nodes.acl" "$rules/crl.pem" "$rules/devices.passwords" 2> /dev/null | cksum; }
take() { # fails where the files cannot be copied now: they are tried again
  new=$(stamp) && cp "$rules/nodes.acl" "$rules/crl.pem" "$own/" &&
    { cat "$keys/passwords" && { cat "$rules/devices.passwords" 2> /dev/null || :; }; } > "$own/passwords.new" &&
    mv "$own/passwords.new" "$own/passwords" && taken=$new
}

mkdir -p "$own"
take
# The image has the plugin in /usr/lib, Debian's package in a folder of the processor's.
for plugin in /usr/lib/mosquitto_dynamic_security.so /usr/lib/*/mosquitto_dynamic_security.so; do
  [ ! -e "$plugin" ] || break
done
sed "s|^plugin /usr/lib/mosquitto_dynamic_security.so|plugin $plugin|" "${1:-$keys/mosquitto.conf}" > "$own/mosquitto.conf"
# Until Mosquitto has read its queue from disk and listens to SIGHUP, the signal would end it.
(trap '' HUP && exec mosquitto -c "$own/mosquitto.conf") &
broker=$!
trap 'kill "$broker"' TERM INT
while kill -0 "$broker" 2>/dev/null; do
  sleep 1 & wait $! || true # a signal ends the wait
  # A broker that ended because of rules that cannot be copied would forget what it has not saved.
  if [ "$(stamp)" != "$taken" ] && take; then
    kill -HUP "$broker" || true
  fi
done
wait "$broker"
