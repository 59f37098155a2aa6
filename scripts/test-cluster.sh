#!/usr/bin/env bash
# Installs Slurm and Docker from Debian's packages, where they are missing, and runs the tests against real ones:
# test-cluster.sh PYTHON [PYTEST OPTIONS]. Without options it also runs the main path on Debian sid, with its Slurm and a
# real Apptainer; `test-cluster.sh PYTHON sid` runs that alone. Needs root on Debian or Ubuntu; nothing of it keeps running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift

folder=$(mktemp -d /tmp/dlbench-cluster-XXXXXX)
sid=''
tidy() {
  [ -z "$sid" ] || kill "$sid" 2>/dev/null || true
  # The tests take down what they have brought up; this is for those that were killed.
  bash tests/cluster/engine.sh down "$folder/docker" || true
  bash tests/cluster/cluster.sh down "$folder/slurm" || true
  bash tests/cluster/sid.sh down "$folder/sid" || true
  rm -rf "$folder"
}
trap tidy EXIT

bash scripts/install-missing.sh slurmctld=slurm-wlm munged=munge dockerd=docker.io debootstrap=debootstrap
if [ "$#" -eq 0 ] || [ "$*" = sid ]; then
  # Takes minutes, mostly of waiting for packages: beside the tests.
  bash tests/cluster/sid.sh up "$folder/sid" &
  sid=$!
fi
# Signals end the tests first, so that they tidy up.
export DLBENCH_TEST_CLUSTER=$folder
if [ "$*" != sid ]; then
  "$python" -m pytest tests/cluster -m cluster --timeout=900 "$@"
  [ "$#" -eq 0 ] || exit 0
fi
# Debian's unstable suite is not always whole; what then cannot be set up says nothing about this project.
failed=''
wait "$sid" || failed=yes
sid=''
if [ -n "$failed" ]; then
  echo "warning: Debian sid could not be set up: its Slurm and Apptainer were not tried" >&2
  exit 0
fi
PYTHON=$python DLBENCH_TEST_SID=1 bash tests/cluster/sid.sh run "$folder/sid" \
  "$python" -m pytest tests/cluster/test_sid.py -m cluster --timeout=900
