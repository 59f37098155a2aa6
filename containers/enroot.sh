#!/usr/bin/env bash
# Makes dlbench.sqsh, the image that Enroot and pyxis start: enroot.sh TARGET [BASE]
#
# Enroot has no recipes of its own: a container is made from the base, changed by a command inside, and exported. Runs
# on any node with Enroot; needs no root and no Docker. With a Docker engine at hand this does the same:
#   docker build -t dlbench containers/ && enroot import -o dlbench.sqsh dockerd://dlbench
set -euo pipefail

target=${1:?where to put the image, such as "\$SCRATCH/images/dlbench.sqsh"}
base=${2:-docker://nvcr.io#nvidia/pytorch:26.05-py3}
packages=(pyarrow pandas scipy matplotlib jinja2 psutil nvidia-ml-py fpdf2 duckdb rich argcomplete)

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

# Not there in a job on another node than the login's, and no GPU is needed here.
[ -w "${XDG_RUNTIME_DIR:-/nowhere}" ] || XDG_RUNTIME_DIR=$(mktemp -d)
export XDG_RUNTIME_DIR
export NVIDIA_VISIBLE_DEVICES=void

enroot import --output "$imported" "$base"
enroot create --name "$name" "$imported"
# The host's environment does not go in; pip needs a home for nothing and a proxy perhaps.
enroot start --rw --root --env http_proxy --env https_proxy "$name" \
  python3 -m pip install --no-cache-dir "${packages[@]}"
enroot export --output "$exported" "$name"
# Under its own name only when it is whole.
mv "$exported" "$target"
echo "$target"
