#!/bin/bash
# Report of suite classic, written by `dlbench submit`.
#PBS -N classic-report
#PBS -q workq
#PBS -A myproject
#PBS -j oe
#PBS -o /scratch/anna/results/jobs/
#PBS -l select=1:ncpus=1:mem=4gb
#PBS -l walltime=00:30:00
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

inside=(/home/anna/dlbench/.venv/bin/python)
"${inside[@]}" -m dlbench collect --results "$results"
"${inside[@]}" -m dlbench report "$results" -o "$results/report"
