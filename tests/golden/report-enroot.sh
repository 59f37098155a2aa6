#!/bin/bash
# Report of suite classic, written by `dlbench submit`.
# To run by hand: salloc with the options below, then run this file with bash inside the allocation.
#SBATCH --job-name=classic-report
#SBATCH --partition=cpu
#SBATCH --account=myproject
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --mem=4G
#SBATCH --time=00:30:00
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
export NVIDIA_VISIBLE_DEVICES=void
export XDG_RUNTIME_DIR=/tmp/dlbench-"$SLURM_JOB_ID"
export DLBENCH_CONTAINER_RUNTIME=enroot
export DLBENCH_CONTAINER_IMAGE=/scratch/anna/images/dlbench.sqsh
# Runtimes mount the host's driver and network libraries: list them for the records.
DLBENCH_HOST_LIBRARIES=$(
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null |
    awk '/lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|ibverbs|mlx5|pmi2|pmix)\.so/ {print $NF}' |
    xargs -r readlink -f | sort -u | paste -sd : -
) || true
export DLBENCH_HOST_LIBRARIES

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
  'PYTHONSAFEPATH PYTHONPATH NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME DLBENCH_CONTAINER_RUNTIME DLBENCH_CONTAINER_IMAGE DLBENCH_HOST_LIBRARIES NVIDIA_VISIBLE_DEVICES RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT CUDA_VISIBLE_DEVICES OMP_NUM_THREADS SLURM_JOB_ID SLURM_JOB_PARTITION SLURM_JOB_NODELIST SLURM_JOB_NUM_NODES SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT SLURM_STEP_ID SLURM_NTASKS SLURM_PROCID SLURM_LOCALID SLURM_NODEID SLURM_CPUS_PER_TASK SLURM_STEP_NUM_TASKS SLURM_STEP_TASKS_PER_NODE SLURMD_NODENAME DLBENCH_MASTER_ADDR DLBENCH_MASTER_PORTS DLBENCH_INTERFACE DLBENCH_RENDEZVOUS_S'
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

# shellcheck disable=SC2329
tidy() {
  srun "${each_node[@]}" bash -c 'enroot remove --force "$0-$SLURMD_NODENAME"; rm -rf "/tmp/$0"' dlbench-"$SLURM_JOB_ID" 2>/dev/null || true
}
trap tidy EXIT
tidy # remove files of an earlier run of this job, if it was killed and requeued
patiently srun "${each_node[@]}" bash -c 'jobs=$(squeue --noheader --user="$(id -un)" --format=%A) && grep -qx "$SLURM_JOB_ID" <<<"$jobs" || exit 0; ended() { [[ $1 =~ ^[0-9]+$ ]] && ! grep -qx "$1" <<<"$jobs"; }; for name in $(enroot list); do id=${name#dlbench-}; case $name in dlbench-*-"$SLURMD_NODENAME") if ended "${id%%-*}"; then enroot remove --force "$name"; fi ;; esac; done; for folder in /tmp/dlbench-*; do if [ -d "$folder" ] && [ ! -L "$folder" ] && [ -O "$folder" ] && ended "${folder#/tmp/dlbench-}"; then rm -rf "$folder"; fi; done; true'
patiently srun "${each_node[@]}" bash -c 'exec enroot create --name "$0-$SLURMD_NODENAME" "$1"' dlbench-"$SLURM_JOB_ID" /scratch/anna/images/dlbench.sqsh

patiently "${step[@]}" --nodes=1 --ntasks=1 "${inside[@]}" -m dlbench collect --results "$results"
patiently "${step[@]}" --nodes=1 --ntasks=1 "${inside[@]}" -m dlbench report "$results" -o "$results/report"
