#!/bin/sh
# Runs a RabbitMQ node with the cluster's cookie, which Erlang reads from the home folder of its user alone.
set -eu
umask 077
cookie=/var/lib/rabbitmq/.erlang.cookie
rm -f "$cookie"
cp /run/qilu/rabbitmq/cookie "$cookie"
chmod 0400 "$cookie"
export HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-

# On Kubernetes the name of a node is known a moment after it starts.
name=${RABBITMQ_NODENAME:-}
until [ -z "$name" ] || getent hosts "${name#*@}" >/dev/null; do sleep 1; done
exec rabbitmq-server
