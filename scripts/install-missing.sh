#!/usr/bin/env bash
# Installs Debian packages whose command or LaTeX style is missing: install-missing.sh NAME=PACKAGE... Only root can.
set -euo pipefail

missing=()
for pair in "$@"; do
  case $pair in
  *.sty=*) kpsewhich "${pair%=*}" >/dev/null 2>&1 ;;
  *) command -v "${pair%=*}" >/dev/null ;;
  esac || missing+=("${pair#*=}")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "these packages are missing, and only root may install them: ${missing[*]}" >&2
  exit 2
fi
echo "installing ${missing[*]}" >&2
# Nothing may start by itself: tests bring up daemons of their own, in folders of their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
