"""`python -m dlbench`, and the `dlbench` command.

An old Python of a login node must run this file and `dlbench/__init__.py` up to the error below:
both use only syntax of Python 3.6, without `from __future__ import annotations`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (pip would refuse; `python3 -m dlbench` in a checkout does not ask pip)
    sys.stderr.write(
        "dlbench: needs Python 3.11 or newer, but {} is {}.{}.{}; on a cluster, try `module avail python`\n".format(
            sys.executable, *sys.version_info[:3]
        )
    )
    sys.exit(2)

from dlbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
