"""The commands for clusters: submit, status, cancel, resume, image, doctor."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.commands.arguments import add_command, add_suite, say, some_path

if TYPE_CHECKING:
    from dlbench.launch.jobs import Status, SubmittedJob


def add(commands: Any) -> None:
    """Add the commands to argparse's subparsers."""
    submit = add_command(commands, "submit", _submit, "put a campaign through Slurm, in the site's container")
    add_suite(submit)
    submit.add_argument("--site", required=True, help="a site profile, or the name of one in slurm/")
    _results(submit)
    submit.add_argument("--array", default="1", metavar="N[%M]", help="N jobs share the cases, M of them at a time")
    submit.add_argument("--by-nodes", action="store_true", help="a job of its own for each node count")
    reporting = submit.add_mutually_exclusive_group()
    reporting.add_argument(
        "--no-report", dest="report", action="store_false", help="no last job that writes the report"
    )
    reporting.add_argument(
        "--report-only", action="store_true", help="that job alone, after the jobs that are queued or running"
    )
    submit.add_argument("--dry-run", action="store_true", help="print what would be submitted, and submit nothing")
    submit.add_argument("--write", action="store_true", help="with --dry-run: write the scripts, to be run by hand")

    status = add_command(commands, "status", _status, "show the queue, and how far the cases are")
    _results(status)
    status.add_argument("--json", action="store_true", help="the same for programs")

    cancel = add_command(commands, "cancel", _cancel, "end the queued and running jobs of a results folder")
    _results(cancel)

    resume = add_command(commands, "resume", _resume, "submit again what is missing and has no job in the queue")
    _results(resume)
    resume.add_argument("--dry-run", action="store_true", help="say what would be submitted, and submit nothing")

    image = add_command(
        commands, "image", _image, "fetch the site's container image, once, verified, its digest recorded"
    )
    image.add_argument("action", choices=("import",))
    image.add_argument("--site", required=True, help="a site profile, or the name of one in slurm/")
    image.add_argument("--force", action="store_true", help="fetch it again")

    doctor = add_command(commands, "doctor", _doctor, "check this machine, and say what is wrong and how to mend it")
    doctor.add_argument("--site", help="a site profile, or the name of one in slurm/")
    doctor.add_argument("--results", type=some_path, help="the results folder that is meant")
    doctor.add_argument("--node", action="store_true", help="only what a node must have before a job's first case")
    doctor.add_argument("--token", type=some_path, help="with --node: a file that this node must see")
    doctor.add_argument("--json", action="store_true", help="for a support ticket")


def _results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=some_path,
        default=Path("results"),
        help="folder for the results, on a disk that all nodes see",
    )


def _submit(options: argparse.Namespace) -> int:
    from dlbench.errors import BadInput
    from dlbench.launch import jobs, probe, scheduler
    from dlbench.launch.results_folder import check_folder
    from dlbench.launch.sites import load_site, remarks
    from dlbench.suites.suite import load_suite, models_of

    site = load_site(options.site)
    for remark in remarks(site):
        say(remark)
    suite = load_suite(options.suite, options.overrides)
    # A misspelt network would only be found after hours in the queue.
    probe.check_models(models_of(suite.cases()))
    array, throttle = jobs.parse_array(options.array)
    submission = jobs.prepare(
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
        print(jobs.shown(submission))
        if options.write:
            check_folder(options.results)
            jobs.write(submission)
            script = submission.folder / submission.scripts[0].name
            say(f"written, to be run by hand inside of an allocation: bash {script}")
        else:
            say(f"nothing is written; with --write these scripts and their suite go to {submission.folder}/")
        return 0
    if options.report_only and not options.results.is_dir():
        raise BadInput(f"no results at '{options.results}': there is no such folder to report on")
    check_folder(options.results)
    jobs.check_array(max(script.array for script in submission.scripts), scheduler.max_array_size())
    after = jobs.active_jobs(options.results, ("campaign",)) if options.report_only else []
    refused = None
    try:
        jobs.submit(submission, after, _show)
    except jobs.ReportRefused as error:
        refused = error
    say(f"{suite.name}: {units.counted(submission.num_cases, 'case')} -> {options.results}/ at {site.name}")
    if refused:
        say(f"dlbench: {refused}")
        return 1
    say(f"`dlbench status --results {options.results}` shows how far they are")
    return 0


def _show(job: SubmittedJob) -> None:
    print(f"{job.job_id or '(not submitted)':<10} {job.kind:<9} {job.script}", flush=True)


def _status(options: argparse.Namespace) -> int:
    from dlbench.launch import jobs

    found = jobs.status(options.results)
    if found[0].slurm_error:
        say(f"dlbench: {found[0].slurm_error}; the cases are counted from their files, the jobs' states are unknown")
    if options.json:
        import json

        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return 0
    for one in found:
        _print_status(one)
    return 0


def _print_status(status: Status) -> None:
    for count in status.counts:
        system = f" on {count.system_key}" if count.system_key else ""
        print(
            f"{status.submission}{system}: {units.counted(count.total, 'case')}: {count.done} done, "
            f"{count.running} running, {count.failed} failed, {count.out_of_memory} out of memory, "
            f"{count.missing} missing"
        )
    for job, state in status.jobs:
        used = f"{state.elapsed} of {state.limit}" if state.state == "RUNNING" else ""
        reason = f"({state.reason})" if state.state == "PENDING" and state.reason not in ("", "None") else ""
        words = [f"  {state.id:<14} {job.kind:<9} {state.state:<10}", state.nodes, used, reason]
        print(" ".join(word for word in words if word).rstrip())


def _cancel(options: argparse.Namespace) -> int:
    from dlbench.launch import jobs

    ended = jobs.cancel(options.results)
    say(f"cancelled: {', '.join(ended)}" if ended else "nothing is queued or running")
    return 0


def _resume(options: argparse.Namespace) -> int:
    from dlbench.launch import jobs

    try:
        jobs.resume(options.results, options.dry_run, _show)
    except jobs.ReportRefused as error:
        say(f"dlbench: {error}")
        return 1
    return 0


def _image(options: argparse.Namespace) -> int:
    from dlbench.launch import images
    from dlbench.launch.sites import load_site

    found = images.import_image(load_site(options.site).container, options.force, say)
    print(f"{found.image} {found.digest}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from dlbench.launch import doctor
    from dlbench.launch.sites import load_site

    site = load_site(options.site) if options.site else None
    place = doctor.Place(site=site, results=options.results, token=options.token, in_job=options.node)
    findings = doctor.examine(place, doctor.NODE_CHECKS if options.node else doctor.CHECKS)
    if options.node and not options.json:
        # One line for each thing that is wrong: a job of many nodes would drown in what is well.
        findings = [finding for finding in findings if finding.level in ("warn", "fail")]
        findings = [dataclasses.replace(finding, text=f"{place.node}: {finding.text}") for finding in findings]
    text = doctor.as_json(findings) if options.json else doctor.as_text(findings)
    if text:
        print(text)
    return doctor.exit_status(findings)
