#!/bin/bash
# Suite classic at site nvidia-enroot, written by `dlbench submit`.
# To run by hand: salloc with the options below, then run this file with bash inside the allocation.
#SBATCH --job-name=classic
#SBATCH --partition=gpu
#SBATCH --account=myproject
#SBATCH --constraint=h100
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=24
#SBATCH --gres=gpu:h100:4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/scratch/anna/results/jobs/%x-%j.out
# shellcheck disable=SC1003,SC1112,SC2016,SC2088 # single-quoted text is literal
set -euo pipefail
: "${SLURM_JOB_ID:?is not set: submit this with sbatch, or run it with bash inside an allocation}"

results=/scratch/anna/results
export PYTHONSAFEPATH=1
export PYTHONPATH=/home/anna/dlbench
export NCCL_SOCKET_IFNAME=ib0
export GLOO_SOCKET_IFNAME=ib0
export NVIDIA_VISIBLE_DEVICES=all
export NVIDIA_DRIVER_CAPABILITIES='compute,utility'
export XDG_RUNTIME_DIR=/tmp/dlbench-"$SLURM_JOB_ID"
export DLBENCH_CONTAINER_RUNTIME=enroot
export DLBENCH_CONTAINER_IMAGE=/scratch/anna/images/dlbench.sqsh@sha256:0123
# Runtimes mount the host's driver and network libraries: list them for the records.
DLBENCH_HOST_LIBRARIES=$(
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null |
    awk '/lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|ibverbs|mlx5|pmi2|pmix)\.so/ {print $NF}' |
    xargs -r readlink -f | sort -u | paste -sd : -
) || true
export DLBENCH_HOST_LIBRARIES

suite=/scratch/anna/results/jobs/classic-0a1b2c3d/classic.toml

# Rendezvous of the ranks at the first free port; jobs on the same node get different ports.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export DLBENCH_JOB_NODES="${nodes[*]}"
export MASTER_ADDR="${DLBENCH_MASTER_ADDR:-${nodes[0]}}"
port=$((20000 + SLURM_JOB_ID % 1200 * 10))
export DLBENCH_MASTER_PORTS="${DLBENCH_MASTER_PORTS:-$port-$((port + 9))}"
export MASTER_PORT="${DLBENCH_MASTER_PORTS%%[,-]*}"

# Since Slurm 22.05, srun does not inherit --cpus-per-task from the job.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
# A job that was submitted without environment variables would pass none to its steps.
export SLURM_EXPORT_ENV=ALL
# Started by hand in an interactive step, all ranks would be bound to the cores of that step.
unset SLURM_CPU_BIND SLURM_CPU_BIND_TYPE SLURM_CPU_BIND_LIST SLURM_CPU_BIND_VERBOSE
step=(srun --kill-on-bad-exit=1 --wait=60)
inside=(
  bash
  -c 'options=(); while [ "$1" != -- ]; do options+=("$1"); shift; done; for name in $0; do [ -z "${!name+set}" ] || options+=(--env "$name"); done; exec enroot start "${options[@]}" "$2-$SLURMD_NODENAME" "${@:3}"'
  'PYTHONSAFEPATH PYTHONPATH NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME DLBENCH_CONTAINER_RUNTIME DLBENCH_CONTAINER_IMAGE DLBENCH_HOST_LIBRARIES NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT CUDA_VISIBLE_DEVICES OMP_NUM_THREADS SLURM_JOB_ID SLURM_JOB_PARTITION SLURM_JOB_NODELIST SLURM_JOB_NUM_NODES SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT SLURM_STEP_ID SLURM_NTASKS SLURM_PROCID SLURM_LOCALID SLURM_NODEID SLURM_CPUS_PER_TASK SLURM_STEP_NUM_TASKS SLURM_STEP_TASKS_PER_NODE SLURMD_NODENAME DLBENCH_MASTER_ADDR DLBENCH_MASTER_PORTS DLBENCH_INTERFACE DLBENCH_RENDEZVOUS_S'
  --rw
  --mount /scratch/anna:/scratch/anna
  --mount '/opt/data:/data:none:x-create=auto,rbind,ro'
  --mount /home/anna/dlbench:/home/anna/dlbench
  -- dlbench-"$SLURM_JOB_ID"
  python3
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

# shellcheck disable=SC2329
tidy() {
  srun "${each_node[@]}" bash -c 'enroot remove --force "$0-$SLURMD_NODENAME"; rm -rf "/tmp/$0"' dlbench-"$SLURM_JOB_ID" 2>/dev/null || true
}
trap tidy EXIT
tidy # remove files of an earlier run of this job, if it was killed and requeued
patiently srun "${each_node[@]}" bash -c 'jobs=$(squeue --noheader --user="$(id -un)" --format=%A) && grep -qx "$SLURM_JOB_ID" <<<"$jobs" || exit 0; ended() { [[ $1 =~ ^[0-9]+$ ]] && ! grep -qx "$1" <<<"$jobs"; }; for name in $(enroot list); do id=${name#dlbench-}; case $name in dlbench-*-"$SLURMD_NODENAME") if ended "${id%%-*}"; then enroot remove --force "$name"; fi ;; esac; done; for folder in /tmp/dlbench-*; do if [ -d "$folder" ] && [ ! -L "$folder" ] && [ -O "$folder" ] && ended "${folder#/tmp/dlbench-}"; then rm -rf "$folder"; fi; done; true'
patiently srun "${each_node[@]}" bash -c 'exec enroot create --name "$0-$SLURMD_NODENAME" "$1"' dlbench-"$SLURM_JOB_ID" /scratch/anna/images/dlbench.sqsh

# Check on every node: Python, results folder, mounts, free space. Stop if a check fails.
# All nodes must see the token file: on a node-local folder of the same name, results would be lost.
token=$(mktemp "$results/jobs/.node-check-$SLURM_JOB_ID-XXXXXX")
status=0
patiently "${step[@]}" "${each_node[@]}" "${inside[@]}" \
  -m dlbench doctor --node --results "$results" --token "$token" || status=$?
rm -f "$token"
[ "$status" -eq 0 ] || exit "$status"

# dlbench runs outside the container. It starts each case as a job step and replaces {ranks} by the step's node and rank options.
watched python3 -m dlbench run "$suite" --results "$results" \
  --launcher srun -- "${step[@]}" '{ranks}' "${inside[@]}" || status=$?

# If the job is near its time limit and was not cancelled, requeue it to measure the missing cases.
if [ "$status" -ge 128 ] && [ "$received" = USR1 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  tidy
  scontrol requeue "$SLURM_JOB_ID" || echo "cannot requeue this job; run dlbench resume" >&2
fi

exit "$status"
