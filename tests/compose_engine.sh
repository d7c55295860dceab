#!/usr/bin/env bash
# A Docker engine for the compose test on a machine without one, where a kit for that lies beside this repository:
#
#   tests/compose_engine.sh up DIR     starts it and prints DOCKER_HOST=… and DOCKER_CONFIG=…, one a line
#   tests/compose_engine.sh down DIR   stops it
#
# Exits with 3 when there is no kit.
set -u
cd "$(dirname "$0")/.." || exit 1
kit=${QILU_COMPOSE_KIT:-../shared/compose-kit}/engine.sh
[ -r "$kit" ] || exit 3
# shellcheck source=/dev/null
. "$kit"
case $1 in
  up)
    engine_up "$2" >&2 || exit 1
    standins "$2" docker-compose.yml >&2 || exit 1
    printf 'DOCKER_HOST=%s\nDOCKER_CONFIG=%s\n' "$DOCKER_HOST" "$DOCKER_CONFIG"
    ;;
  down) engine_down "$2" >&2 ;;
esac
