"""`dlbench cancel`: ends the jobs of a results folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import (
    add_command,
    add_results_folder,
)
from dlbench.messages import say

if TYPE_CHECKING:
    pass


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "cancel", _cancel, "end the queued and running jobs of a results folder")
    add_results_folder(parser)


def _cancel(options: argparse.Namespace) -> int:
    from dlbench.launch import jobs

    ended = jobs.cancel(options.results)
    say(f"cancelled: {', '.join(ended)}" if ended else "nothing is queued or running")
    return 0
