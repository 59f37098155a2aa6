#!/bin/bash
# Suite classic at site nvidia-apptainer, written by `dlbench submit`.
# To run by hand: salloc with the options below, then run this file with bash inside the allocation.
#SBATCH --job-name=classic
#SBATCH --partition=gpu
#SBATCH --account=myproject
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gres=gpu:1
#SBATCH --exclusive
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/scratch/anna/results/jobs/%x-%j.out
#SBATCH --mail-type=END,FAIL
# shellcheck disable=SC1003,SC1112,SC2016,SC2088 # single-quoted text is literal
set -euo pipefail
: "${SLURM_JOB_ID:?is not set: submit this with sbatch, or run it with bash inside an allocation}"

results=/scratch/anna/results
# `module` is a shell function. It may be undefined in batch jobs, and it reads unset variables.
set +eu
# shellcheck disable=SC1091
type module >/dev/null 2>&1 || . /etc/profile
set -e
module load apptainer
set -u
export PYTHONSAFEPATH=1
export PYTHONNOUSERSITE=1
export PYTHONPATH=/home/anna/dlbench
export DLBENCH_CONTAINER_RUNTIME=apptainer
export DLBENCH_CONTAINER_IMAGE=/scratch/anna/images/dlbench.sif
# Runtimes mount the host's driver and network libraries: list them for the records.
DLBENCH_HOST_LIBRARIES=$(
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null |
    awk '/lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|ibverbs|mlx5|pmi2|pmix)\.so/ {print $NF}' |
    xargs -r readlink -f | sort -u | paste -sd : -
) || true
export DLBENCH_HOST_LIBRARIES

suite=/scratch/anna/results/jobs/classic-0a1b2c3d/classic.toml

# Since Slurm 22.05, srun does not inherit --cpus-per-task from the job.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
# A job that was submitted without environment variables would pass none to its steps.
export SLURM_EXPORT_ENV=ALL
# Started by hand in an interactive step, all ranks would be bound to the cores of that step.
unset SLURM_CPU_BIND SLURM_CPU_BIND_TYPE SLURM_CPU_BIND_LIST SLURM_CPU_BIND_VERBOSE
step=(srun --kill-on-bad-exit=1 --wait=60 --mpi=pmi2)
inside=(
  apptainer exec
  --nv
  --bind /scratch/anna:/scratch/anna
  --bind /home/anna/dlbench:/home/anna/dlbench
  --pwd /home/anna/dlbench
  /scratch/anna/images/dlbench.sif python3
)
each_node=(--overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)

# Exit status of srun if Slurm itself failed, for example without a controller; programs never return it.
export SLURM_EXIT_ERROR=119
# If Slurm could not start a step, wait for its controller and try again.
patiently() {
  local status
  for _ in {1..5}; do
    status=0
    "$@" || status=$?
    [ "$status" -eq "$SLURM_EXIT_ERROR" ] || break
    echo "Slurm did not start a step of job $SLURM_JOB_ID; waiting for its controller to try again" >&2
    for _ in {1..360}; do
      sleep 10
      [ "${signals:-0}" -eq 0 ] || return 130
      if [[ $(scontrol ping 2>/dev/null) == *" UP"* ]]; then break; fi
    done
  done
  return "$status"
}

# Shortly before the time limit Slurm sends USR1 to this script only; a shell runs traps only during `wait`. The
# campaign then ends the running case as preempted; finished cases are stored.
child='' received='' signals=0
# shellcheck disable=SC2034,SC2329
pass_on() {
  received=$1 signals=$((signals + 1))
  [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null || true
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM INT
# shellcheck disable=SC2329
watched() {
  local status=0 seen=$signals
  [ "$seen" -eq 0 ] || return 130
  "$@" &
  child=$!
  wait "$child" || status=$?
  while [ "$seen" -ne "$signals" ]; do # a signal ends `wait`, not the child
    seen=$signals status=0
    wait "$child" || status=$?
  done
  child=''
  return "$status"
}

# Check on every node: Python, results folder, mounts, free space. Stop if a check fails.
# All nodes must see the token file: on a node-local folder of the same name, results would be lost.
token=$(mktemp "$results/jobs/.node-check-$SLURM_JOB_ID-XXXXXX")
status=0
patiently "${step[@]}" "${each_node[@]}" "${inside[@]}" \
  -m dlbench doctor --node --results "$results" --token "$token" || status=$?
rm -f "$token"
[ "$status" -eq 0 ] || exit "$status"

patiently watched "${step[@]}" --nodes=1 --ntasks=1 "${inside[@]}" \
  -m dlbench run "$suite" --results "$results" || status=$?

# If the job is near its time limit and was not cancelled, requeue it to measure the missing cases.
if [ "$status" -ge 128 ] && [ "$received" = USR1 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  scontrol requeue "$SLURM_JOB_ID" || echo "cannot requeue this job; run dlbench resume" >&2
fi

exit "$status"
