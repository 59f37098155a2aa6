"""`dlbench cancel`: cancel the jobs of a results folder."""

import argparse
from typing import Any

from dlbench.commands.arguments import SHARED_FOLDER_HELP, add_command, add_results_folder
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    add_results_folder(
        add_command(commands, "cancel", _call_cancel_command, "--results results/classic"), SHARED_FOLDER_HELP
    )


def _call_cancel_command(options: argparse.Namespace) -> None:
    from dlbench.launch import jobs

    ended = jobs.cancel_jobs(options.results)
    say(f"cancelled: {', '.join(ended)}" if ended else "no queued or running jobs")
