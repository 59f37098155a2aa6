"""A Python like ours whose `-m dlbench.worker` is the stand-in `tests/cluster/worker.py`."""

from __future__ import annotations

import sys
from pathlib import Path


def make_python(folder: Path) -> Path:
    """Put it into `folder`; gives its path. Workers of any campaign started through it measure nothing, and quickly."""
    base = Path(sys.executable).resolve()
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    python = folder / "bin" / "python"
    python.write_text(
        "#!/bin/bash\n"
        'if [ "${1-}" = -m ] && [ "${2-}" = dlbench.worker ]; then shift 2; set -- -m tests.cluster.worker "$@"; fi\n'
        f'exec -a "$0" {base} "$@"\n'
    )
    python.chmod(0o755)
    return python
