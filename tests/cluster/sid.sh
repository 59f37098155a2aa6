#!/usr/bin/env bash
# Debian sid, with its Slurm and a real Apptainer, in a folder: sid.sh up FOLDER | run FOLDER COMMAND... | down FOLDER
#
# `run` starts a command with FOLDER/root as its root, in namespaces of its own, where this checkout, the interpreter PYTHON
# and its packages are at their places; whatever it leaves running ends with it. Needs root and debootstrap.
set -euo pipefail

action=$1
folder=$2
root=$folder/root
packages=slurm-wlm,munge,apptainer,squashfuse,python3,hostname,procps

up() {
  mkdir -p "$root" "$folder/log"
  # In memory: a package manager that waits for the disk after every file takes minutes.
  mount -t tmpfs -o size=4G none "$root"
  debootstrap --variant=minbase --include="$packages" sid "$root" >"$folder/log/debootstrap.txt"
  # What is to be an image: the same system, of which nothing is compressed.
  mkdir -p "$root/image/dev" "$root/image/proc" "$root/image/sys" "$root/image/tmp" "$root/image/root"
  rm -rf "$root"/var/{cache/apt,lib/apt/lists} "$root"/usr/share/{doc,locale,man}
  # This machine's root may lack a capability that Apptainer would ask for; none is needed.
  sed -i 's/^root default capabilities = .*/root default capabilities = no/' "$root/etc/apptainer/apptainer.conf"
  cp -a "$root"/{bin,etc,lib,lib64,sbin,usr} "$root/image/"
}

run() { # COMMAND...
  # shellcheck disable=SC2016
  exec unshare --pid --fork --kill-child --mount --mount-proc --propagation=private bash -c '
    root=$1 python=$2
    shift 2
    place() {
      mkdir -p "$root$1"
      mountpoint -q "$root$1" || mount --rbind "$1" "$root$1"
    }
    for system in /proc /sys /dev; do place "$system"; done
    # The interpreter, its packages and this checkout; what lies in one of them already is there.
    while read -r path; do
      [ -d "$path" ] && place "$path"
    done < <("$python" -c "import sys; print(sys.base_prefix, sys.prefix, *filter(None, sys.path), sep=chr(10))" && pwd)
    echo "127.0.0.1 localhost $(hostname -s)" >"$root/etc/hosts"
    here=$PWD
    cd "$root"
    mkdir -p old
    pivot_root . old
    cd "$here"
    umount -l /old
    "$@"
    exit "$?" # no exec: this shell is the first process here, which must bury those that others leave
  ' bash "$root" "${PYTHON:?is the interpreter that the tests run in}" "$@"
}

down() {
  umount "$root" 2>/dev/null || true
  rm -rf --one-file-system "$folder"
}

case $action in
  up) up ;;
  run) run "${@:3}" ;;
  down) down ;;
  *) echo "usage: $0 up|down FOLDER | run FOLDER COMMAND..." >&2 && exit 2 ;;
esac
