#!/usr/bin/env bash
# Builds dlbench.sqsh, the image for Enroot and pyxis: enroot.sh TARGET [BASE]
#
# Enroot has no recipes: this script creates a container from the base, runs a command in it, and exports it. It runs on
# any node with Enroot, without root or Docker. With Docker, this is equivalent:
#   docker build -t dlbench containers/ && enroot import -o dlbench.sqsh dockerd://dlbench
set -euo pipefail

target=${1:?where to put the image, such as "\$SCRATCH/images/dlbench.sqsh"}
base=${2:-docker://nvcr.io#nvidia/pytorch:26.05-py3}
packages=(pyarrow pandas scipy matplotlib jinja2 psutil nvidia-ml-py typst duckdb rich argcomplete ruptures pillow)

if [ -e "$target" ]; then
  echo "$target is there already" >&2
  exit 2
fi
folder=$(dirname "$target")
mkdir -p "$folder"
name=dlbench-build-$$
imported=$folder/.$name.base.sqsh
exported=$folder/.$name.sqsh
tidy() {
  enroot remove --force "$name" 2>/dev/null || true
  rm -f "$imported" "$exported"
}
trap tidy EXIT

# Missing in jobs on other nodes than the login node; no GPU is needed here.
[ -w "${XDG_RUNTIME_DIR:-/nowhere}" ] || XDG_RUNTIME_DIR=$(mktemp -d)
export XDG_RUNTIME_DIR
export NVIDIA_VISIBLE_DEVICES=void

enroot import --output "$imported" "$base"
enroot create --name "$name" "$imported"
# The environment of the host is not passed; pip needs a home and possibly a proxy.
enroot start --rw --root --env http_proxy --env https_proxy "$name" \
  python3 -m pip install --no-cache-dir "${packages[@]}"
enroot export --output "$exported" "$name"
# Rename only when it is complete.
mv "$exported" "$target"
echo "$target"
