"""`dlbench status`: show queued jobs and progress, of one campaign or of all below a folder."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.commands.arguments import SHARED_FOLDER_HELP, add_command, add_flag, add_results_folder
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.launch.case_counts import CaseCounts
    from dlbench.launch.job_watch import CampaignSummary
    from dlbench.launch.jobs import SubmissionStatus


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "status", _run_status_command, "--results results/classic")
    add_results_folder(parser, SHARED_FOLDER_HELP)
    add_flag(parser, "--json", "print JSON")
    add_flag(parser, "--watch", "wait for the end of the jobs")
    add_flag(parser, "--energy", "compare the energy recorded by Slurm with that measured by dlbench")
    parser.epilog = f"exit status of --watch: 0 all cases ended, 1 some are missing or failed\n\n{parser.epilog}"


def _run_status_command(options: argparse.Namespace) -> int:
    from dlbench.launch import job_watch, jobs

    folders = job_watch.results_folders_below(options.results)
    if options.watch and folders:
        return watch_jobs(folders)
    if folders and folders != [options.results]:
        _print_campaigns(job_watch.summarize_campaigns(folders), options.json)
        return OK
    found = jobs.submission_statuses(options.results)
    if options.energy:
        from dlbench.launch import accounted_energy

        found = accounted_energy.add_job_energy(found, options.results)
    if found[0].slurm_error:
        say(f"dlbench: {found[0].slurm_error}; the states of the jobs are unknown, only the results are shown")
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return OK
    for one in found:
        _print_status(one)
    return OK


def watch_jobs(folders: Sequence[Path]) -> int:
    """Wait for the end of all jobs of these results folders; return the exit status."""
    from dlbench.launch import job_watch

    complete = job_watch.wait_for_jobs(folders, lambda found: _print_campaigns(found, False), say)
    return OK if complete else SOME_FAILED


def _print_campaigns(campaigns: Sequence[CampaignSummary], as_json: bool) -> None:
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in campaigns], indent=1))
        return
    for one in campaigns:
        on_nodes = f" on {one.nodes} nodes or GPUs" if one.nodes else ""
        active = f"; {units.count_text(one.active_jobs, 'job')} queued or running" if one.active_jobs else ""
        print(f"{one.folder}: {one.suite}{on_nodes}: {_case_counts_text(one.counts)}{active}", flush=True)


def _case_counts_text(count: CaseCounts) -> str:
    return (
        f"{count.total} processes: {count.done} done, {count.running} running, {count.failed} failed, "
        f"{count.out_of_memory} out of memory, {count.num_missing} missing"
    )


def _print_status(status: SubmissionStatus) -> None:
    for count in status.counts:
        system = f" on {count.system_key}" if count.system_key else ""
        print(f"{status.submission}{system}: {_case_counts_text(count)}")
    for job, state in status.jobs:
        used = f"{state.elapsed} of {state.limit}" if state.state == "RUNNING" else ""
        reason = f"({state.reason})" if state.state == "PENDING" and state.reason not in ("", "None") else ""
        energy = status.energy.get(job.job_id)
        words = [f"  {state.id:<14} {job.kind:<9} {state.state:<10}", state.nodes, used, reason]
        words += [energy.energy_text] if energy else []
        print(" ".join(word for word in words if word).rstrip())
