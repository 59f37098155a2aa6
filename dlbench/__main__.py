"""`python -m dlbench`, and the `dlbench` command."""

from __future__ import annotations

import os
import sys

from dlbench.cli import build_parser
from dlbench.errors import DlbenchError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a `DlbenchError` becomes one line on stderr and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    step: list[str] = []
    if arguments[:1] == ["run"] and "--" in arguments:
        # argparse would give these words to the suite.
        at = arguments.index("--")
        arguments, step = arguments[:at], arguments[at + 1 :]
    options = build_parser().parse_args(arguments)
    options.step = step
    try:
        status: int = options.command(options)
        sys.stdout.flush()
    except DlbenchError as error:
        print(f"dlbench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
