#!/usr/bin/env bash
# Installs Slurm and Docker from Debian's packages, where they are missing, and runs the tests against real ones:
# test-cluster.sh PYTHON [PYTEST OPTIONS]. Needs root on Debian or Ubuntu; nothing of it keeps running afterwards.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need slurmctld slurm-wlm
need munged munge
need dockerd docker.io
need debootstrap debootstrap
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are missing, and only root may install them: ${missing[*]}" >&2
    exit 2
  fi
  echo "installing ${missing[*]}" >&2
  # Nothing may start by itself: the tests bring up daemons of their own, in folders of their own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
DLBENCH_TEST_CLUSTER=1 "$python" -m pytest tests/cluster -m cluster "$@"
