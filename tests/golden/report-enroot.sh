#!/bin/bash
# The report of the suite classic, written by `dlbench submit`.
# By hand: salloc with the options below, then bash this file inside the allocation.
#SBATCH --job-name=classic-report
#SBATCH --partition=cpu
#SBATCH --account=myproject
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --time=00:30:00
#SBATCH --open-mode=append
#SBATCH --output=/scratch/anna/results/jobs/%x-%j.out
# shellcheck disable=SC2016 # what stands in single quotes is meant as it stands
set -euo pipefail
: "${SLURM_JOB_ID:?is not set: submit this with sbatch, or run it with bash inside an allocation}"

results=/scratch/anna/results
export PYTHONPATH=/home/anna/dlbench
export NCCL_SOCKET_IFNAME=ib0
export GLOO_SOCKET_IFNAME=ib0
export NVIDIA_VISIBLE_DEVICES=void
export XDG_RUNTIME_DIR=/tmp/dlbench-"$SLURM_JOB_ID"
export DLBENCH_CONTAINER_RUNTIME=enroot
export DLBENCH_CONTAINER_IMAGE=/scratch/anna/images/dlbench.sqsh
# Runtimes bring the driver's and the network's libraries in from out here: for the records, which they are.
DLBENCH_HOST_LIBRARIES=$(
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null |
    awk '/lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|ibverbs|mlx5|pmi2|pmix)\.so/ {print $NF}' |
    xargs -r readlink -f | sort -u | paste -sd : -
) || true
export DLBENCH_HOST_LIBRARIES

# From Slurm 22.05 on srun no longer takes this from the job.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
# A job that was submitted without any environment would hand none to its steps either.
export SLURM_EXPORT_ENV=ALL
# By hand in an interactive step: its own binding would squeeze all ranks onto its cores.
unset SLURM_CPU_BIND SLURM_CPU_BIND_TYPE SLURM_CPU_BIND_LIST SLURM_CPU_BIND_VERBOSE
step=(srun --kill-on-bad-exit=1 --wait=60)
inside=(
  bash
  -c 'options=(); while [ "$1" != -- ]; do options+=("$1"); shift; done; for name in $0; do [ -z "${!name+set}" ] || options+=(--env "$name"); done; exec enroot start "${options[@]}" "$2-$SLURMD_NODENAME" "${@:3}"'
  'PYTHONPATH NCCL_SOCKET_IFNAME GLOO_SOCKET_IFNAME DLBENCH_CONTAINER_RUNTIME DLBENCH_CONTAINER_IMAGE DLBENCH_HOST_LIBRARIES NVIDIA_VISIBLE_DEVICES RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT CUDA_VISIBLE_DEVICES OMP_NUM_THREADS SLURM_JOB_ID SLURM_JOB_PARTITION SLURM_JOB_NODELIST SLURM_JOB_NUM_NODES SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT SLURM_STEP_ID SLURM_NTASKS SLURM_PROCID SLURM_LOCALID SLURM_NODEID SLURM_CPUS_PER_TASK SLURM_STEP_NUM_TASKS SLURM_STEP_TASKS_PER_NODE SLURMD_NODENAME DLBENCH_MASTER_ADDR DLBENCH_MASTER_PORTS DLBENCH_INTERFACE DLBENCH_RENDEZVOUS_S'
  --rw
  --mount /scratch/anna:/scratch/anna
  --mount '/opt/data:/data:none:x-create=auto,rbind,ro'
  --mount /home/anna/dlbench:/home/anna/dlbench
  -- dlbench-"$SLURM_JOB_ID"
  python3
)
each_node=(--overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)

# shellcheck disable=SC2329
tidy() {
  srun "${each_node[@]}" bash -c 'exec enroot remove --force "$0-$SLURMD_NODENAME"' dlbench-"$SLURM_JOB_ID" 2>/dev/null || true
}
trap tidy EXIT
tidy # what an earlier run of this job left, if it was killed and requeued
srun "${each_node[@]}" bash -c 'jobs=$(squeue --noheader --user="$(id -un)" --format=%A) || exit 0; for name in $(enroot list); do id=${name#dlbench-}; case $name in dlbench-*-"$SLURMD_NODENAME") grep -qx "${id%%-*}" <<<"$jobs" || enroot remove --force "$name" ;; esac; done; true'
srun "${each_node[@]}" bash -c 'exec enroot create --name "$0-$SLURMD_NODENAME" "$1"' dlbench-"$SLURM_JOB_ID" /scratch/anna/images/dlbench.sqsh

"${step[@]}" --nodes=1 --ntasks=1 "${inside[@]}" -m dlbench collect --results "$results"
"${step[@]}" --nodes=1 --ntasks=1 "${inside[@]}" -m dlbench report "$results" -o "$results/report"
