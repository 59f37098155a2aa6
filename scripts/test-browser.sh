#!/usr/bin/env bash
# Installs Chromium and LaTeX from Debian's packages and Playwright into the environment, where they are missing, and runs
# the tests that look at a report in a real browser: test-browser.sh PYTHON [PYTEST OPTIONS]. Installing needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v pdflatex >/dev/null || missing+=(texlive-latex-base)
# booktabs.sty
kpsewhich booktabs.sty >/dev/null 2>&1 || missing+=(texlive-latex-recommended)
kpsewhich lmodern.sty >/dev/null 2>&1 || missing+=(lmodern)
if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" -ne 0 ]; then
    echo "these packages are missing, and only root may install them: ${missing[*]}" >&2
    exit 2
  fi
  echo "installing ${missing[*]}" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
# Playwright drives Debian's Chromium; it downloads no browser of its own.
"$python" -c 'import playwright' 2>/dev/null || "$python" -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
DLBENCH_TEST_BROWSER=1 "$python" -m pytest tests/browser -m browser "$@"
