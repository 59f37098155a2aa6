"""A Python like ours whose `-m dlbench.worker` is something else: by default the stand-in `tests/cluster/worker.py`."""

from __future__ import annotations

import sys
from pathlib import Path

STAND_IN = 'shift 2; set -- -m tests.cluster.worker "$@"'


def make_python(folder: Path, worker: str = STAND_IN) -> Path:
    """Put it into `folder`; gives its path. Workers of any campaign started through it measure nothing, and quickly.

    Args:
        worker: shell commands in place of those workers; `run_worker ARGUMENTS` is the real Python.
    """
    base = Path(sys.executable).resolve()
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    python = folder / "bin" / "python"
    python.write_text(
        "#!/bin/bash\n"
        f'name=$0\nrun_worker() {{ exec -a "$name" {base} "$@"; }}\n'
        f'if [ "${{1-}}" = -m ] && [ "${{2-}}" = dlbench.worker ]; then\n{worker}\nfi\n'
        f'exec -a "$0" {base} "$@"\n'
    )
    python.chmod(0o755)
    return python
