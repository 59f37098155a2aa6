#!/usr/bin/env bash
# A Docker engine of one's own, without a network of its own: engine.sh up FOLDER | down FOLDER | base FOLDER TAG
#
# `export DOCKER_HOST=unix://FOLDER/docker.sock` makes `docker` use it. `base` makes an image of a plain Debian, without
# any registry. Needs root, docker.io and debootstrap.
set -euo pipefail

action=$1
folder=$2
export DOCKER_HOST=unix://$folder/docker.sock

up() {
  mkdir -p "$folder/log"
  setsid dockerd --host="$DOCKER_HOST" --data-root="$folder/data" --exec-root="$folder/exec" \
    --pidfile="$folder/dockerd.pid" --iptables=false --bridge=none >"$folder/log/dockerd.txt" 2>&1 </dev/null &
  echo $! >"$folder/pid"
  local left=150
  until docker info >/dev/null 2>&1; do
    left=$((left - 1))
    if [ "$left" -le 0 ] || ! kill -0 "$(cat "$folder/pid")" 2>/dev/null; then
      tail -n 20 "$folder/log/dockerd.txt" >&2
      exit 1
    fi
    sleep 0.2
  done
}

base() { # TAG
  local root=$folder/base
  # In memory: a package manager that waits for the disk after every file takes minutes.
  mkdir -p "$root"
  mount -t tmpfs none "$root"
  debootstrap --variant=minbase --include=ca-certificates "$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" \
    "$root" >"$folder/log/debootstrap.txt"
  # The host's certificates, so that pip inside trusts what it trusts out here.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  tar -C "$root" --create . | docker import - "$1" >/dev/null
  umount "$root"
}

down() {
  [ -e "$folder/pid" ] || exit 0
  docker ps --quiet | xargs -r docker rm --force >/dev/null 2>&1 || true
  kill "$(cat "$folder/pid")" 2>/dev/null || true
  local left=50
  while kill -0 "$(cat "$folder/pid")" 2>/dev/null && [ "$left" -gt 0 ]; do
    left=$((left - 1))
    sleep 0.2
  done
  # Both leave by themselves, unless the engine was killed.
  local file
  for file in "$folder/pid" "$folder/exec/containerd/containerd.pid"; do
    [ ! -e "$file" ] || kill -KILL "$(cat "$file")" 2>/dev/null || true
  done
  local mounted
  for mounted in "$folder/base" "$folder"/exec/netns/* "$folder"/data/overlay2/*/merged "$folder/data/overlay2"; do
    umount "$mounted" 2>/dev/null || true
  done
  rm -rf "$folder"
}

case $action in
  up) up ;;
  down) down ;;
  base) base "$3" ;;
  *) echo "usage: $0 up|down FOLDER | base FOLDER TAG" >&2 && exit 2 ;;
esac
