#!/usr/bin/env bash
# Measures this machine and publishes it as a reference system: reference.sh PYTHON NAME SUITES RESULTS [SECONDS]
#
# Runs the suites (separated by spaces; none: the one that fits the device) with three processes of each case, and up to
# 72 where its ± is wider than the suite asks for, the ceilings, and a profile of each network that was trained, at the
# precision and layout in which it was fastest. Leaves reports/reference-NAME/records.parquet, ceilings/ and profiles/,
# without host and user names, paths, environment and job numbers, and the report that is built from them.
#
# A call takes about SECONDS at most (540; 0: no limit). If the time is up, or it is interrupted, it exits with 130, and the
# same command resumes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
name=$2
suites=$3
results=$4
limit=${5:-540}

if ! [[ $name =~ ^[a-z0-9][a-z0-9.-]*$ ]]; then
  echo "a reference system is called by small letters, digits, '.' and '-', not '$name'; try: make reference NAME=epyc-7b13" >&2
  exit 2
fi
if ! [[ $limit =~ ^[0-9]+$ ]]; then
  echo "the time of a call is '$limit'; give seconds, such as 540 (0: no limit)" >&2
  exit 2
fi
folder=reports/reference-$name
SECONDS=0

# Runs a command of dlbench in what is left of this call.
within() {
  local left=$((limit - SECONDS)) status=0
  if [ "$limit" -eq 0 ]; then
    "$python" -m dlbench "$@" || status=$?
  elif [ "$left" -lt 20 ]; then
    status=124
  else
    # --foreground: Ctrl-C reaches dlbench as well.
    timeout --foreground --signal=TERM --kill-after=60 "$left" "$python" -m dlbench "$@" || status=$?
  fi
  # 137: `timeout` killed it when its time was up; earlier, something else did.
  if [ "$status" -eq 137 ] && [ "$limit" -gt 0 ] && [ "$SECONDS" -ge "$limit" ]; then status=124; fi
  case $status in
    124 | 130 | 143)
      echo "reference: not finished after $SECONDS s; run the same command again to resume" >&2
      exit 130
      ;;
  esac
  return "$status"
}

if [ -z "$suites" ]; then
  suites=quick
  if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then suites=quick_gpu; fi
fi
for suite in $suites; do
  status=0
  within run "$suite" -P protocol.processes=3 -P protocol.max_processes=72 --results "$results" </dev/null || status=$?
  # 1: some cases failed; that is part of the record.
  if [ "$status" -gt 1 ]; then exit "$status"; fi
done
within ceilings --missing --results "$results" </dev/null

# Of each network and batch that was trained on one device: the fastest precision and layout.
fastest='
import sys, dlbench
cases = dlbench.metrics(sys.argv[1])
alone = cases[(cases["mode"] == "training") & (cases["nodes"] * cases["devices_per_node"] == 1) & cases["throughput"].gt(0)]
best = alone.sort_values("throughput", ascending=False).drop_duplicates(["model", "batch_size"])
for case in best.sort_values(["model", "batch_size"]).to_dict("records"):
    print(case["model"], case["batch_size"], case["precision"], case["memory_format"])
'
settings=$("$python" -c "$fastest" "$results")
while read -r model batch precision layout; do
  [ -n "$model" ] || continue
  profile=$results/profiles/reference-${model//[^A-Za-z0-9._-]/_}-$batch
  if ! [ -e "$profile/profile.json" ]; then
    rm -rf "$profile"
    # A network that cannot be profiled leaves its profile out, not the whole reference.
    within profile "$model" -P "batch_size=$batch" -P "precision=$precision" -P "memory_format=$layout" \
      --results "$results" -o "$profile" </dev/null || [ $? -eq 1 ]
  fi
done <<<"$settings"
rm -rf "$folder"
"$python" -m dlbench export "$results" --format parquet --public -o "$folder/records.parquet"
"$python" -m dlbench report "$folder/records.parquet" -o "$folder"
