#!/usr/bin/env bash
# Installs ReFrame and mlperf-logging from PyPI and Ramble from GitHub into a folder of their own, and JUBE from Debian's
# packages; then runs the tests in which these tools run dlbench: test-integrations.sh PYTHON [PYTEST OPTIONS].
# Installing JUBE needs root. DLBENCH_TEST_RAMBLE names a Ramble that is already there. Where GitHub or Debian cannot be
# reached, the tests of Ramble or JUBE are skipped, with a warning.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/tools"
"$folder/tools/bin/pip" install --quiet --disable-pip-version-check reframe-hpc mlperf-logging tqdm deprecation
if [ -z "${DLBENCH_TEST_RAMBLE:-}" ]; then
  export DLBENCH_TEST_RAMBLE=$folder/ramble
  GIT_TERMINAL_PROMPT=0 timeout 300 \
    git clone --quiet --depth 1 https://github.com/GoogleCloudPlatform/ramble "$DLBENCH_TEST_RAMBLE" ||
    echo "warning: Ramble could not be fetched from GitHub: its application is not tried" >&2
fi
if ! command -v jube >/dev/null && [ "$(id -u)" -eq 0 ]; then
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends jube >/dev/null; } ||
    echo "warning: JUBE could not be installed: its file is not tried" >&2
fi
DLBENCH_TEST_INTEGRATIONS=$folder/tools/bin "$python" -m pytest tests/integrations -m integrations --timeout=900 "$@"
