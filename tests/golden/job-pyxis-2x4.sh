#!/bin/bash
# The suite classic at the site nvidia-pyxis, written by `dlbench submit`.
# By hand: salloc with the options below, then bash this file inside the allocation.
#SBATCH --job-name=classic
#SBATCH --partition=gpu
#SBATCH --account=myproject
#SBATCH --qos=normal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/scratch/anna/results/jobs/%x-%j.out
# shellcheck disable=SC1003,SC1112,SC2016,SC2088 # what stands in single quotes is meant as it stands
set -euo pipefail
: "${SLURM_JOB_ID:?is not set: submit this with sbatch, or run it with bash inside an allocation}"

results=/scratch/anna/results
export PYTHONSAFEPATH=1
export PYTHONPATH=/home/anna/dlbench
export NCCL_SOCKET_IFNAME=ib0
export GLOO_SOCKET_IFNAME=ib0
export NVIDIA_VISIBLE_DEVICES=all
export NVIDIA_DRIVER_CAPABILITIES='compute,utility'
export DLBENCH_CONTAINER_RUNTIME=pyxis
export DLBENCH_CONTAINER_IMAGE=/scratch/anna/images/dlbench.sqsh@sha256:0123
# Runtimes bring the driver's and the network's libraries in from out here: for the records, which they are.
DLBENCH_HOST_LIBRARIES=$(
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null |
    awk '/lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|ibverbs|mlx5|pmi2|pmix)\.so/ {print $NF}' |
    xargs -r readlink -f | sort -u | paste -sd : -
) || true
export DLBENCH_HOST_LIBRARIES

suite=/scratch/anna/results/jobs/classic-0a1b2c3d/classic.toml

# Where the ranks find each other, at the first port that is free; jobs that share a node get different ones.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export DLBENCH_JOB_NODES="${nodes[*]}"
export MASTER_ADDR="${DLBENCH_MASTER_ADDR:-${nodes[0]}}"
port=$((20000 + SLURM_JOB_ID % 1200 * 10))
export DLBENCH_MASTER_PORTS="${DLBENCH_MASTER_PORTS:-$port-$((port + 9))}"
export MASTER_PORT="${DLBENCH_MASTER_PORTS%%[,-]*}"

# From Slurm 22.05 on srun no longer takes this from the job.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
# A job that was submitted without any environment would hand none to its steps either.
export SLURM_EXPORT_ENV=ALL
# By hand in an interactive step: its own binding would squeeze all ranks onto its cores.
unset SLURM_CPU_BIND SLURM_CPU_BIND_TYPE SLURM_CPU_BIND_LIST SLURM_CPU_BIND_VERBOSE
step=(
  srun
  --kill-on-bad-exit=1
  --wait=60
  --mpi=pmix
  --container-image=/scratch/anna/images/dlbench.sqsh
  --container-name=dlbench-"$SLURM_JOB_ID"
  '--container-mounts=/scratch/anna:/scratch/anna,/home/anna/dlbench:/home/anna/dlbench'
  --container-workdir=/home/anna/dlbench
  '--container-env=PYTHONSAFEPATH,PYTHONPATH,NCCL_SOCKET_IFNAME,GLOO_SOCKET_IFNAME,DLBENCH_CONTAINER_RUNTIME,DLBENCH_CONTAINER_IMAGE,DLBENCH_HOST_LIBRARIES,NVIDIA_VISIBLE_DEVICES,NVIDIA_DRIVER_CAPABILITIES'
)
inside=(python3)
each_node=(--overlap --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1)

# srun ends so where Slurm itself failed, such as a controller that does not answer; what it runs never does.
export SLURM_EXIT_ERROR=119
# A step that Slurm could not start says nothing about what should run in it: once the controller answers, try again.
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

# Shortly before the limit Slurm sends USR1 to this script alone, and a shell runs its traps only while it waits. The
# campaign ends the case in flight as preempted then; all finished ones are safe.
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
  srun "${each_node[@]}" env -u ENROOT_DATA_PATH enroot remove --force pyxis_dlbench-"$SLURM_JOB_ID" 2>/dev/null || true
}
trap tidy EXIT
tidy # what an earlier run of this job left, if it was killed and requeued
patiently srun "${each_node[@]}" bash -c 'jobs=$(squeue --noheader --user="$(id -un)" --format=%A) && grep -qx "$SLURM_JOB_ID" <<<"$jobs" || exit 0; ended() { [[ $1 =~ ^[0-9]+$ ]] && ! grep -qx "$1" <<<"$jobs"; }; for name in $(env -u ENROOT_DATA_PATH enroot list); do case $name in pyxis_dlbench-* | pyxis_[0-9]*_dlbench-*) if ended "${name##*dlbench-}"; then env -u ENROOT_DATA_PATH enroot remove --force "$name"; fi ;; esac; done; for folder in /tmp/dlbench-*; do if [ -d "$folder" ] && [ ! -L "$folder" ] && [ -O "$folder" ] && ended "${folder#/tmp/dlbench-}"; then rm -rf "$folder"; fi; done; true'

# Every node: are Python, the results folder and the mounts there, and is there space? If not, stop here.
# All nodes must see the token: a folder of the same name on a disk of their own would swallow results.
token=$(mktemp "$results/jobs/.node-check-$SLURM_JOB_ID-XXXXXX")
status=0
patiently "${step[@]}" "${each_node[@]}" "${inside[@]}" \
  -m dlbench doctor --node --results "$results" --token "$token" || status=$?
rm -f "$token"
[ "$status" -eq 0 ] || exit "$status"

# The supervisor stays out here; each case is a step, with {ranks} replaced by its nodes and ranks.
watched python3 -m dlbench run "$suite" --results "$results" \
  --launcher srun -- "${step[@]}" '{ranks}' "${inside[@]}" || status=$?

# Told of the limit, not cancelled: the same job goes on later with what is missing.
if [ "$status" -ge 128 ] && [ "$received" = USR1 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  tidy
  scontrol requeue "$SLURM_JOB_ID" || echo "cannot requeue this job; dlbench resume does" >&2
fi

exit "$status"
