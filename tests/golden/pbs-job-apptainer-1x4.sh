#!/bin/bash
# Suite classic at site gpu, written by `dlbench submit`.
#PBS -N classic
#PBS -j oe
#PBS -o /scratch/anna/results/jobs/
#PBS -l select=1:ncpus=64:mpiprocs=4:ngpus=4:mem=500gb
#PBS -l place=scatter:excl
#PBS -l walltime=08:00:00
#PBS -r y
# shellcheck disable=SC1003,SC1112,SC2016,SC2088 # single-quoted text is literal
set -euo pipefail
: "${PBS_JOBID:?is not set: submit this with qsub, or run it with bash inside an interactive job}"

results=/scratch/anna/results
export PYTHONSAFEPATH=1
export PYTHONPATH=/home/anna/dlbench
export DLBENCH_CONTAINER_RUNTIME=apptainer
export DLBENCH_CONTAINER_IMAGE=/scratch/x.sif
# Runtimes mount the host's driver and network libraries: list them for the records.
DLBENCH_HOST_LIBRARIES=$(
  PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null |
    awk '/lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|ibverbs|mlx5|pmi2|pmix)\.so/ {print $NF}' |
    xargs -r readlink -f | sort -u | paste -sd : -
) || true
export DLBENCH_HOST_LIBRARIES

suite=/scratch/anna/results/jobs/classic-0a1b2c3d/classic.toml
inside=(
  apptainer exec
  --nv
  --bind /scratch/anna/results:/scratch/anna/results
  --bind /home/anna/dlbench:/home/anna/dlbench
  --pwd /home/anna/dlbench
  /scratch/x.sif python3
)

# Check the first node: Python, results folder, mounts, free space. Stop if a check fails.
"${inside[@]}" -m dlbench doctor --node --results "$results"

# PBS sends no signal before the time limit: `timeout` stops the running case (as preempted); finished cases are stored.
trap : TERM USR1
status=0
timeout --foreground --signal=USR1 28620 "${inside[@]}" -m dlbench run \
  "$suite" --results "$results" || status=$?

exit "$status"
