#!/bin/bash
# Suite classic at site pbs, written by `dlbench submit`.
#PBS -N classic
#PBS -q workq
#PBS -A myproject
#PBS -j oe
#PBS -o /scratch/anna/results/jobs/
#PBS -l select=2:ncpus=64:mpiprocs=4:model=icelake
#PBS -l place=scatter:excl
#PBS -l walltime=04:00:00
#PBS -r y
#PBS -m ae
# shellcheck disable=SC1003,SC1112,SC2016,SC2088 # single-quoted text is literal
set -euo pipefail
: "${PBS_JOBID:?is not set: submit this with qsub, or run it with bash inside an interactive job}"

results=/scratch/anna/results
# `module` is a shell function. It may be undefined in batch jobs, and it reads unset variables.
set +eu
# shellcheck disable=SC1091
type module >/dev/null 2>&1 || . /etc/profile
set -e
module load openmpi
set -u
export PYTHONPATH=/home/anna/dlbench"${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1
export NCCL_SOCKET_IFNAME=ib0
export GLOO_SOCKET_IFNAME=ib0

suite=/scratch/anna/results/jobs/classic-0a1b2c3d/classic.toml
inside=(/home/anna/dlbench/.venv/bin/python)

# Check the first node: Python, results folder, mounts, free space. Stop if a check fails.
"${inside[@]}" -m dlbench doctor --node --results "$results"

# PBS sends no signal before the time limit: `timeout` stops the running case (as preempted); finished cases are stored.
trap : TERM USR1
status=0
timeout --foreground --signal=USR1 14220 "${inside[@]}" -m dlbench run \
  "$suite" --results "$results" --launcher mpirun || status=$?

exit "$status"
