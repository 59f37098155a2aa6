#!/usr/bin/env bash
# Measures this machine and publishes it as a reference system: reference.sh PYTHON NAME SUITE RESULTS
#
# Leaves reports/reference-NAME/records.parquet, without host and user names, paths, environment and job numbers, and the
# report that is built from it. Broken off, the same command goes on with what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
name=$2
suite=$3
results=$4

if ! [[ $name =~ ^[a-z0-9][a-z0-9.-]*$ ]]; then
  echo "a reference system is called by small letters, digits, '.' and '-', not '$name'; try: make reference NAME=epyc-7b13" >&2
  exit 2
fi
folder=reports/reference-$name

status=0
"$python" -m dlbench run "$suite" --results "$results" || status=$?
# 1: some cases failed; that is part of the record.
if [ "$status" -gt 1 ]; then exit "$status"; fi
if ! compgen -G "$results/ceilings/*.parquet" >/dev/null; then
  "$python" -m dlbench ceilings --results "$results"
fi
rm -rf "$folder"
"$python" -m dlbench export "$results" --format parquet --public -o "$folder/records.parquet"
"$python" -m dlbench report "$folder/records.parquet" -o "$folder"
