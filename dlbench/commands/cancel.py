"""`dlbench cancel`: ends the jobs of a results folder."""

from __future__ import annotations

import argparse
from typing import Any

from dlbench.commands.arguments import (
    add_command,
    add_results_folder,
)
from dlbench.messages import say


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "cancel", _cancel)
    add_results_folder(parser)


def _cancel(options: argparse.Namespace) -> int:
    from dlbench.launch import jobs

    ended = jobs.cancel(options.results)
    say(f"cancelled: {', '.join(ended)}" if ended else "nothing is queued or running")
    return 0
