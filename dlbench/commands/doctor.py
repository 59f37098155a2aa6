"""`dlbench doctor`: check this machine."""

import argparse
import dataclasses
import os
import socket
from typing import Any

from dlbench.commands.arguments import add_command, add_flag, add_path


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "doctor", _run_doctor_command, "--site slurm/cpu.toml")
    parser.add_argument("--site", help="site profile: a TOML file, or a name from `dlbench sites`")
    add_path(parser, "--results", help="results folder to check")
    add_flag(parser, "--node", "run only the checks that a node must pass before a job starts")
    add_path(parser, "--token", help="with --node: file in the results folder that must be visible on this node")
    add_flag(parser, "--json", "print JSON, for example for a support ticket")


def _run_doctor_command(options: argparse.Namespace) -> int:
    from dlbench.launch import doctor, sites
    from dlbench.launch.doctor.machine import CheckContext

    site = sites.load_site(options.site) if options.site else None
    context = CheckContext(site=site, results=options.results, token=options.token, in_job=options.node)
    findings = doctor.run_checks(context, doctor.NODE_CHECKS if options.node else doctor.CHECKS)
    if options.node and not options.json:
        # Only problems, one line each: a job of many nodes would print too much otherwise.
        findings = [finding for finding in findings if finding.level in ("warn", "fail")]
        node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        findings = [dataclasses.replace(finding, text=f"{node}: {finding.text}") for finding in findings]
    text = doctor.findings_as_json(findings) if options.json else doctor.findings_as_text(findings)
    if text:
        print(text)
    return doctor.exit_status(findings)
