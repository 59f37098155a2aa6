#!/usr/bin/env bash
# Installs Chromium and LaTeX from Debian's packages and Playwright into the environment, where they are missing, and runs
# the tests that look at a report in a real browser: test-browser.sh PYTHON [PYTEST OPTIONS]. Installing needs root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=$1
shift

bash scripts/install-missing.sh chromium=chromium pdflatex=texlive-latex-base booktabs.sty=texlive-latex-recommended \
  lmodern.sty=lmodern
# Playwright drives Debian's Chromium; it downloads no browser of its own.
"$python" -c 'import playwright' 2>/dev/null || "$python" -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
DLBENCH_TEST_BROWSER=1 "$python" -m pytest tests/browser -m browser "$@"
