"""The command line: each room of `dlbench.commands` adds its own, and imports what it needs when one is called, so that
`dlbench --help` answers at once."""

from __future__ import annotations

import argparse

from dlbench.commands import bounds, campaign, cluster, compare, distributed, memory, project, show
from dlbench.version import __version__

#: In the order of the help.
_ROOMS = (campaign, show, compare, bounds, memory, project, distributed, cluster)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each subparser carries its function as `command`."""
    parser = argparse.ArgumentParser(
        prog="dlbench",
        description="Measure deep-learning networks: time, FLOP, memory, energy, spread, and the physical bounds.",
    )
    parser.add_argument("--version", action="version", version=f"dlbench {__version__}")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)
    for room in _ROOMS:
        room.add(commands)
    return parser
