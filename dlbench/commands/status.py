"""`dlbench status`: show queued jobs and progress."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import (
    SHARED_FOLDER,
    add_command,
    add_results_folder,
)
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.launch.jobs import Status


def add(commands: Any) -> None:
    """Add the command to argparse's subparsers."""
    parser = add_command(commands, "status", _status, "--results results/classic")
    add_results_folder(parser, SHARED_FOLDER)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _status(options: argparse.Namespace) -> None:
    from dlbench.launch import jobs

    found = jobs.status(options.results)
    if found[0].slurm_error:
        say(f"dlbench: {found[0].slurm_error}; cases are counted from their files, job states are unknown")
    if options.json:
        import json

        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return
    for one in found:
        _print_status(one)


def _print_status(status: Status) -> None:
    for count in status.counts:
        system = f" on {count.system_key}" if count.system_key else ""
        print(
            f"{status.submission}{system}: {count.total} processes: {count.done} done, "
            f"{count.running} running, {count.failed} failed, {count.out_of_memory} out of memory, "
            f"{count.missing} missing"
        )
    for job, state in status.jobs:
        used = f"{state.elapsed} of {state.limit}" if state.state == "RUNNING" else ""
        reason = f"({state.reason})" if state.state == "PENDING" and state.reason not in ("", "None") else ""
        words = [f"  {state.id:<14} {job.kind:<9} {state.state:<10}", state.nodes, used, reason]
        print(" ".join(word for word in words if word).rstrip())
