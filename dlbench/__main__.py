"""`python -m dlbench`, and the `dlbench` command.

The old Python of a login node reads this file and `dlbench/__init__.py` too, and must get as far as the refusal below:
nothing in them may be newer than Python 3.6, so no `from __future__ import annotations` either.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (pip would refuse; `python3 -m dlbench` in a checkout does not ask pip)
    sys.stderr.write(
        "dlbench: needs Python 3.11 or newer, and {} is {}.{}.{}; "
        "on a cluster `module avail python` may list others\n".format(sys.executable, *sys.version_info[:3])
    )
    sys.exit(2)

from dlbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
