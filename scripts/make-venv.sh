#!/usr/bin/env bash
# Makes a virtual environment with dlbench in it: make-venv.sh PYTHON FOLDER
set -euo pipefail

python=$1
folder=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "dlbench needs Python >= 3.11, and $python is $("$python" --version 2>&1); try: make PYTHON=python3.12 ..." >&2
  exit 2
fi
free_mib=$(df -Pm . | awk 'NR == 2 { print $4 }')
if [ "$free_mib" -lt 10000 ] && [ ! -x "$folder/bin/python" ]; then
  echo "warning: PyTorch with its libraries takes about 7 GB, and only $free_mib MiB are free here" >&2
fi
if [ ! -x "$folder/bin/python" ]; then
  echo "setting up $folder (once; PyTorch is large, this takes some minutes)" >&2
  # Debian ships Python without ensurepip: there virtualenv, fetched by pip, does the same.
  if ! "$python" -m venv "$folder" 2>/dev/null; then
    rm -rf "$folder"
    boot=$(mktemp -d)
    trap 'rm -rf "$boot"' EXIT
    "$python" -m pip install --quiet --target "$boot" virtualenv
    PYTHONPATH=$boot "$python" -m virtualenv --quiet "$folder"
  fi
fi
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
