#!/usr/bin/env bash
# A real Slurm of four nodes on this one machine, for tests:
# cluster.sh up FOLDER | down FOLDER | node-up FOLDER NODE [HIDDEN]
#
# A node that is started with the folder HIDDEN sees an empty one there, as where a mount is missing.
# Everything lies in FOLDER, the munge key, sockets and logs too; the system's own munge and Slurm are not touched.
# `export SLURM_CONF=FOLDER/slurm.conf` makes Slurm's commands use it. Needs root, slurm-wlm and munge.
set -euo pipefail

action=$1
folder=$2
nodes=(n1 n2 n3 n4)

start() { # NAME COMMAND...: in the background, its process id in FOLDER/pids/NAME
  local name=$1
  shift
  setsid "$@" >"$folder/log/$name.txt" 2>&1 </dev/null &
  echo $! >"$folder/pids/$name"
}

start_node() { # NODE [HIDDEN]
  # slurmd puts its children into process groups of their own; LimitNOFILE and such come from here.
  # What it starts for jobs inherits this variable, by which `down` finds it.
  local hidden=()
  if [ -n "${2:-}" ]; then
    # shellcheck disable=SC2016
    hidden=(unshare --mount bash -c 'mount -t tmpfs none "$0" && exec "$@"' "$2")
  fi
  SLURM_CONF="$folder/slurm.conf" start "$1" "${hidden[@]}" slurmd -D -N "$1" -f "$folder/slurm.conf"
}

# Limits on memory are kept by a cgroup, where the kernel has the version for which this Slurm needs no systemd.
write_limits() {
  if [ -w /sys/fs/cgroup/memory/memory.use_hierarchy ]; then
    task=task/cgroup
    printf '%s\n' CgroupPlugin=cgroup/v1 CgroupMountpoint=/sys/fs/cgroup CgroupAutomount=no ConstrainRAMSpace=yes \
      >"$folder/cgroup.conf"
  else
    task=task/none
    echo ConstrainRAMSpace=no >"$folder/cgroup.conf"
  fi
}

write_configuration() {
  local host task
  host=$(hostname -s)
  write_limits
  # The ports lie apart from Slurm's own, so that a real one on the machine does not notice. A requeued job waits until
  # its first run's credential has expired: 120 s by default.
  cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort=16817
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmdSpoolDir=$folder/spool-%n
SlurmctldTimeout=60
SlurmdTimeout=60
KillWait=15
MinJobAge=300
MaxArraySize=101
OverTimeLimit=0
ProctrackType=proctrack/linuxproc
TaskPlugin=$task
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
MpiDefault=none
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n[1-4] NodeHostname=$host NodeAddr=127.0.0.1 Port=17001-17004 CPUs=4 RealMemory=4000 Gres=gpu:fake:4 State=UNKNOWN
PartitionName=debug Nodes=n[1-4] Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes=n[1-4] MaxTime=INFINITE State=INACTIVE
END
  echo "NodeName=n[1-4] Name=gpu Type=fake File=$folder/gpu[0-3]" >"$folder/gres.conf"
}

up() {
  if [ -e "$folder" ]; then
    echo "$folder is there already: $0 down $folder" >&2
    exit 2
  fi
  (umask 022 && mkdir -p "$folder"/{log,pids,state})
  local number
  for number in 0 1 2 3; do
    mknod "$folder/gpu$number" c 1 3 # as /dev/null: a device to be counted, bound and shown
  done
  dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 status=none
  chmod 400 "$folder/munge.key"
  write_configuration
  start munged munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"
  wait_for 60 test -S "$folder/munge.socket"
  start slurmctld slurmctld -D -f "$folder/slurm.conf"
  local node
  for node in "${nodes[@]}"; do
    start_node "$node"
  done
  export SLURM_CONF="$folder/slurm.conf"
  wait_for 120 all_idle
}

all_idle() {
  [ "$(sinfo --noheader --Node --partition=debug --states=idle 2>/dev/null | wc -l)" -eq "${#nodes[@]}" ]
}

wait_for() { # SECONDS COMMAND...
  local left=$(($1 * 5))
  shift
  until "$@"; do
    left=$((left - 1))
    if [ "$left" -le 0 ]; then
      echo "gave up waiting for: $*" >&2
      tail -n 5 "$folder"/log/*.txt >&2
      exit 1
    fi
    sleep 0.2
  done
}

down() {
  [ -d "$folder/pids" ] || exit 0
  local file
  # The controller last: jobs still running are told to end.
  SLURM_CONF="$folder/slurm.conf" timeout 30 scancel --user=root 2>/dev/null || true
  sleep 1
  for file in "$folder"/pids/*; do
    kill "$(cat "$file")" 2>/dev/null || true
  done
  sleep 1
  for file in "$folder"/pids/*; do
    kill -KILL "$(cat "$file")" 2>/dev/null || true
  done
  # What the jobs have left behind.
  for file in /proc/[0-9]*; do
    if grep -qsz "^SLURM_CONF=$folder/" "$file/environ"; then
      kill -KILL "${file#/proc/}" 2>/dev/null || true
    fi
  done
  local node
  for node in "${nodes[@]}"; do
    if [ -d "/sys/fs/cgroup/memory/slurm_$node" ]; then
      find "/sys/fs/cgroup/memory/slurm_$node" -depth -type d -exec rmdir {} + 2>/dev/null || true
    fi
  done
  rm -rf "$folder"
}

case $action in
  up) up ;;
  down) down ;;
  node-up) start_node "$3" "${4:-}" ;;
  *) echo "usage: $0 up|down FOLDER | node-up FOLDER NODE [HIDDEN]" >&2 && exit 2 ;;
esac
