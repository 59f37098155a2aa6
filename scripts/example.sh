#!/usr/bin/env bash
# Measures this machine with one thread and with two and publishes the comparison: example.sh PYTHON RESULTS
#
# Three processes of each case, the settings in turns, so that slow changes of the machine meet both alike; then up to 72
# where the ± is wider than the suite asks for. Leaves reports/example-threads/ with the records and their report, and a
# picture of its first screen, where Chromium is installed. Interrupted, the same command goes on with what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
results=$2
folder=reports/example-threads
picture=docs/images/example-threads.png
axes=(-P "model=alexnet,googlenet,resnet50" -P protocol.min_time_s=2 -P protocol.max_time_s=5)

for processes in "repeat=0" "repeat=0,1" "repeat=0,1,2" "protocol.max_processes=72"; do
  for threads in 1 2; do
    status=0
    OMP_NUM_THREADS=$threads "$python" -m dlbench run quick "${axes[@]}" -P "$processes" \
      --results "$results/$threads" || status=$?
    # 1: some cases failed; that is part of the record.
    if [ "$status" -gt 1 ]; then exit "$status"; fi
  done
done
rm -rf "$folder"
for threads in 1 2; do
  "$python" -m dlbench export "$results/$threads" --format parquet --public -o "$folder/$threads.parquet"
done
"$python" -m dlbench report "1 thread=$folder/1.parquet" "2 threads=$folder/2.parquet" -o "$folder" \
  --title "One thread against two"
if command -v chromium >/dev/null; then
  chromium --headless --no-sandbox --hide-scrollbars --window-size=1280,1000 --screenshot="$picture" \
    "file://$PWD/$folder/index.html" 2>/dev/null
fi
