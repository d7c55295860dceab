#!/usr/bin/env bash
# The chart's images and the one that holds a pod, as DIR/images.tar: `tests/kubernetes/images.sh DIR`, where
# DIR/programs/pause is. With the Docker engine of this machine, or with one that the compose test would start here.
# Exits with 3 and a sentence where neither is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=$1
version=$(sed -n 's/^appVersion: *"\?\([^"]*\)"\?$/\1/p' deploy/chart/Chart.yaml)
mapfile -t servers < <(sed -n 's/^  image: //p' deploy/chart/values.yaml)

kit=
if ! docker info >/dev/null 2>&1; then
  engine=${TMPDIR:-/tmp}/qilu-compose-engine
  DOCKER_HOST=unix://$engine/docker.sock docker info >/dev/null 2>&1 || trap 'tests/compose_engine.sh down "$engine"' EXIT
  found=$(tests/compose_engine.sh up "$engine") || { echo "there is no Docker engine to build the images with" >&2; exit 3; }
  while IFS= read -r line; do export "${line?}"; done <<<"$found"
  kit=yes
fi

without=$to/without-rabbitmq # why there is no stand-in of it
rm -f "$without"
images=()
for part in gateway:10001 devices:10002 platform:10003; do
  image=clouds-in-qilu/${part%:*}:$version
  docker build -q -f compose/Dockerfile --build-arg "PART=${part%:*}" --build-arg "USER_ID=${part#*:}" -t "$image" . >/dev/null
  images+=("$image")
done
for image in "${servers[@]}"; do
  name=${image##*/}
  standin=tests/kubernetes/standins/${name%%:*}
  if [ -z "$kit" ]; then
    docker image inspect "$image" >/dev/null 2>&1 || docker pull -q "$image" >/dev/null
  elif [ "${name%%:*}" = rabbitmq ]; then
    tests/rabbitmq_image.sh 2>"$to/rabbitmq.log" || { [ $? = 3 ] || exit 1; tail -n 1 "$to/rabbitmq.log" >"$without"; continue; }
  elif [ -d "$standin" ]; then
    docker build -q -t "trial/$image" "$standin" >/dev/null
    image=trial/$image
  fi
  images+=("$image")
done
tar -C "$to/programs" -c pause | docker import -c 'ENTRYPOINT ["/pause"]' - trial/pause:1 >/dev/null
docker save -o "$to/images.tar.new" "${images[@]}" trial/pause:1
mv "$to/images.tar.new" "$to/images.tar"
