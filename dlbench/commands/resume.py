"""`dlbench resume`: submit missing cases again."""

import argparse
from typing import Any

from dlbench.commands.arguments import SHARED_FOLDER_HELP, add_command, add_flag, add_results_folder
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "resume", _run_resume_command, "--dry-run")
    add_results_folder(parser, SHARED_FOLDER_HELP)
    add_flag(parser, "--dry-run", "print what would be submitted without submitting it")


def _run_resume_command(options: argparse.Namespace) -> int:
    from dlbench.commands.submit import print_job_line
    from dlbench.launch import jobs

    try:
        jobs.resubmit_unfinished(options.results, options.dry_run, print_job_line)
    except jobs.ReportJobRefused as error:
        say(f"dlbench: {error}")
        return SOME_FAILED
    return OK
