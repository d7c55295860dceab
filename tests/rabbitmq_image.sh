#!/usr/bin/env bash
# An image under the tag of docker-compose.cluster.yml, made of Debian's RabbitMQ 4 (rabbitmq_root.sh), for an engine that
# cannot pull it: the same version, paths and user id as the official one. Needs DOCKER_HOST.
set -euo pipefail
cd "$(dirname "$0")/.."
tag=$(sed -n 's/^ *image: \(rabbitmq:.*\)$/\1/p' docker-compose.cluster.yml | head -n 1)
docker image inspect "$tag" >/dev/null 2>&1 && exit 0
root=$(tests/rabbitmq_root.sh)
tar -C "$root" --exclude='./dev/*' -c . |
  docker import - local/rabbitmq:root >/dev/null
docker build -q -t "$tag" - >/dev/null <<'IMAGE'
FROM local/rabbitmq:root
RUN usermod -u 999 rabbitmq && groupmod -g 999 rabbitmq && rm -f /etc/rabbitmq/rabbitmq-env.conf \
    && install -d -o rabbitmq -g rabbitmq /var/lib/rabbitmq /var/log/rabbitmq && chown -R rabbitmq:rabbitmq /var/lib/rabbitmq
ENV PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/var/lib/rabbitmq LANG=C.UTF-8
IMAGE
