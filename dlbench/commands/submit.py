"""`dlbench submit`: submit a suite to Slurm or PBS."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.commands import arguments
from dlbench.errors import BadInput
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.launch.jobs import SubmittedJob
    from dlbench.launch.sites import Site
    from dlbench.suites.suite import Suite

#: Maximum length of a list of nodes in a message.
MAX_MESSAGE_CHARACTERS = 300


def add_parser(commands: Any) -> None:
    parser = arguments.add_command(commands, "submit", _run_submit_command, "quick --site nvidia-pyxis --dry-run")
    arguments.add_suite_argument(parser)
    parser.add_argument("--site", required=True, help="site profile: a TOML file, or a name from `dlbench sites`")
    arguments.add_results_folder(parser, arguments.SHARED_FOLDER_HELP)
    parser.add_argument(
        "--array", default="1", metavar="N[%M]", help="split the cases over N jobs (default: 1), at most M at once"
    )
    arguments.add_flag(parser, "--by-nodes", "submit a separate job for each number of nodes")
    arguments.add_flag(parser, "--each-node", "measure the suite on every node separately")
    arguments.add_flag(parser, "--each-gpu", "measure the suite on every GPU separately")
    parser.add_argument("--nodes", metavar="LIST", help="with --each-node or --each-gpu: only these nodes, as n[1-40]")
    parser.add_argument(
        "--after",
        type=_parse_job_id,
        action="append",
        default=[],
        metavar="JOBID",
        help="start only when this job has ended; repeatable",
    )
    arguments.add_flag(parser, "--wait", "wait for the end of the jobs")
    reporting = parser.add_mutually_exclusive_group()
    reporting.add_argument(
        "--no-report", dest="report", action="store_false", help="do not submit the job that writes the report"
    )
    arguments.add_flag(reporting, "--report-only", "submit only the report job; it runs after queued and running jobs")
    arguments.add_flag(parser, "--dry-run", "print the scripts without submitting them")
    arguments.add_flag(parser, "--write", "with --dry-run: also write the scripts, so that you can run them by hand")


def _run_submit_command(options: argparse.Namespace) -> int:
    from dlbench.launch import batch_systems, jobs, probe, slurm
    from dlbench.launch.results_folder import require_writable_folder
    from dlbench.launch.sites import load_site, settings_without_effect
    from dlbench.suites.suite import load_suite, models_of_cases

    site = load_site(options.site)
    for remark in settings_without_effect(site):
        say(remark)
    if site.container.runtime != "none" and jobs.source_checkout_folder() is None:
        say("the jobs use the dlbench inside the container image; install dlbench there (pip install dlbench)")
    suite = load_suite(options.suite, options.overrides)
    # A misspelt network would otherwise fail after hours in the queue.
    probe.check_networks_exist(models_of_cases(suite.cases()))
    ranks_per_node = max(case.devices_per_node for case in suite.cases())
    if site.scheduler == "slurm" and (remark := slurm.unknown_cores_remark(site, ranks_per_node)):
        say(remark)
    if options.wait and options.dry_run:
        raise BadInput("--wait cannot be combined with --dry-run")
    if options.each_node or options.each_gpu or options.nodes:
        return _submit_each_node(options, suite, site)
    array, throttle = jobs.parse_array_option(options.array)
    submission = jobs.prepare_submission(
        suite,
        options.overrides,
        site,
        options.results,
        array=array,
        throttle=throttle,
        by_nodes=options.by_nodes,
        report=options.report,
        report_only=options.report_only,
    )
    if options.dry_run:
        print(jobs.submission_text(submission, options.after))
        on = sorted({script.nodes for script in submission.scripts if script.kind == "campaign"})
        nodes = f"{' and '.join(map(str, on))} {'node' if on == [1] else 'nodes'}"
        say(f"{suite.name}: {units.count_text(submission.num_cases, 'case')} on {nodes} at {site.name}")
        arguments.print_time_estimate(suite, options.results)
        if options.write:
            require_writable_folder(options.results)
            jobs.write_submission(submission)
            script = submission.folder / submission.scripts[0].name
            say(f"wrote the scripts; to run them inside an allocation: bash {script}")
        else:
            say(f"dry run: nothing was written; add --write to write the scripts to {submission.folder}/")
        return OK
    if options.report_only and not options.results.is_dir():
        raise BadInput(f"results folder '{options.results}' does not exist; check --results")
    require_writable_folder(options.results)
    largest = max(script.array for script in submission.scripts)
    jobs.check_array_size(largest, batch_systems.BATCH_SYSTEMS[site.scheduler].max_array_size())
    after = jobs.active_jobs(options.results, ("campaign",)) if options.report_only else []
    refused = None
    taken: list[SubmittedJob] = []
    try:
        jobs.submit(submission, [*options.after, *after], lambda job: _add_submitted_job(taken, job))
    except jobs.ReportJobRefused as error:
        refused = error
    say(f"{suite.name}: {units.count_text(submission.num_cases, 'case')} at {site.name}; results: {options.results}/")
    if refused:
        say(f"dlbench: {refused}")
        return SOME_FAILED
    if not options.wait:
        say(f"run `dlbench status --results {options.results}` to see the progress")
    return _warn_of_stuck_jobs_and_wait(options, [options.results], taken)


def _warn_of_stuck_jobs_and_wait(options: argparse.Namespace, folders: list[Path], taken: list[SubmittedJob]) -> int:
    """Name jobs that cannot start, and wait if asked to."""
    from dlbench.commands.status import watch_jobs
    from dlbench.launch import job_watch

    stuck = job_watch.blocked_job_lines(taken)
    for line in stuck:
        say(f"dlbench: {line}")
    if stuck:
        return SOME_FAILED
    return watch_jobs(folders) if options.wait else OK


def _add_submitted_job(taken: list[SubmittedJob], job: SubmittedJob) -> None:
    taken.append(job)
    print_job_line(job)


def _submit_each_node(options: argparse.Namespace, suite: Suite, site: Site) -> int:
    """Submit one job per node or GPU; return exit status 1 if some were not submitted."""
    from dlbench.launch import each_node, jobs
    from dlbench.launch.results_folder import require_writable_folder
    from dlbench.node_list import compress_nodes, expand_nodes

    if not options.each_node and not options.each_gpu:
        raise BadInput("--nodes needs --each-node or --each-gpu; for jobs on 4 nodes: -P nodes=4")
    if options.array != "1" or options.by_nodes or options.report_only or options.write:
        raise BadInput("--each-node cannot be combined with --array, --by-nodes, --report-only or --write")
    wanted = expand_nodes(options.nodes) if options.nodes else None
    plan = each_node.plan_nodes(suite, site, options.results, wanted, options.each_gpu)
    noun = "GPU" if options.each_gpu else "node"
    for skipped, words in (
        (plan.done, "all cases are measured"),
        (plan.active, "a job is queued or running"),
        (plan.away, "not available (down or drained); run the same command later to measure them"),
    ):
        if skipped:
            names = compress_nodes({unit.node for unit in skipped})
            shown = names if len(names) <= MAX_MESSAGE_CHARACTERS else f"{names[:MAX_MESSAGE_CHARACTERS]} ..."
            say(f"skipped {units.count_text(len(skipped), noun)} ({shown}): {words}")
    submissions = (
        each_node.prepare_unit_submission(suite, options.overrides, site, options.results, unit) for unit in plan.submit
    )
    if options.dry_run:
        for submission in submissions:
            print(jobs.submission_text(submission, options.after))
        arguments.print_time_estimate(suite, options.results, len(plan.submit))
        return OK
    require_writable_folder(options.results)
    taken, refused = each_node.submit(submissions, options.after, print_job_line)
    num_taken = units.count_text(len(taken), noun)
    say(f"{suite.name}: submitted for {num_taken} at {site.name}; results: {options.results}/nodes/")
    if refused:
        say(f"dlbench: {refused}; run the same command later to submit the others")
    folders = [each_node.node_or_gpu_folder(options.results, unit) for unit in (*plan.active, *plan.submit)]
    status = _warn_of_stuck_jobs_and_wait(options, [folder for folder in folders if folder.is_dir()], taken)
    return SOME_FAILED if refused or plan.away else status


def _parse_job_id(text: str) -> str:
    if not re.fullmatch(r"[0-9]+(_[0-9]+|\[[0-9]*\])?(\.[A-Za-z0-9.-]+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a job id; write for example 4711")
    return text


def print_job_line(job: SubmittedJob) -> None:
    print(f"{job.job_id or '(not submitted)':<10} {job.kind:<9} {job.script}", flush=True)
