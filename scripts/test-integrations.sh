#!/usr/bin/env bash
# Installs ReFrame and mlperf-logging from PyPI into a folder of their own and JUBE from Debian's packages, and runs the
# tests in which these tools run dlbench: test-integrations.sh PYTHON [PYTEST OPTIONS]. Installing JUBE needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/tools"
"$folder/tools/bin/pip" install --quiet --disable-pip-version-check reframe-hpc mlperf-logging
if ! command -v jube >/dev/null && [ "$(id -u)" -eq 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends jube >/dev/null
fi
DLBENCH_TEST_INTEGRATIONS=$folder/tools/bin "$python" -m pytest tests/integrations -m integrations --timeout=900 "$@"
