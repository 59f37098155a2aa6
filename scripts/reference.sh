#!/usr/bin/env bash
# Measures this machine and publishes it as a reference system: reference.sh PYTHON NAME SUITES RESULTS
#
# Runs the suites (separated by spaces) three times each, so that the spread from run to run is in the record, the ceilings,
# and a profile of each network that was trained. Leaves reports/reference-NAME/records.parquet, ceilings/ and profiles/,
# without host and user names, paths, environment and job numbers, and the report that is built from them. Broken off, the
# same command goes on with what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
name=$2
suites=$3
results=$4

if ! [[ $name =~ ^[a-z0-9][a-z0-9.-]*$ ]]; then
  echo "a reference system is called by small letters, digits, '.' and '-', not '$name'; try: make reference NAME=epyc-7b13" >&2
  exit 2
fi
folder=reports/reference-$name

for suite in $suites; do
  status=0
  "$python" -m dlbench run "$suite" -P repeat=0,1,2 --results "$results" || status=$?
  # 1: some cases failed; that is part of the record.
  if [ "$status" -gt 1 ]; then exit "$status"; fi
done
"$python" -m dlbench ceilings --missing --results "$results"
trained="select distinct model, batch_size from records where mode = 'training' and nodes * devices_per_node = 1 order by all"
"$python" -m dlbench query "$trained" --results "$results" --format csv | tail -n +2 | while IFS=, read -r model batch; do
  if ! compgen -G "$results/profiles/reference-$model-$batch/profile.json" >/dev/null; then
    rm -rf "$results/profiles/reference-$model-$batch"
    "$python" -m dlbench profile "$model" -P "batch_size=$batch" --results "$results" \
      -o "$results/profiles/reference-$model-$batch" </dev/null
  fi
done
rm -rf "$folder"
"$python" -m dlbench export "$results" --format parquet --public -o "$folder/records.parquet"
"$python" -m dlbench report "$folder/records.parquet" -o "$folder"
