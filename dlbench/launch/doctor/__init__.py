"""`dlbench doctor`: checks this machine, reports problems and how to fix them.

Works on a bare login node, inside a job and inside a container. Standard library only; checks that need torch use the
worker's probe, a separate process. Each check is a function from a `CheckContext` to findings; it raises no exception.
"""

import dataclasses
import json
import os
import socket
import sys
import time
from collections.abc import Iterable

from dlbench.launch.doctor.cluster import check_mpi, check_network, check_pbs, check_slurm
from dlbench.launch.doctor.folders import check_folders, check_mounts
from dlbench.launch.doctor.gpu import check_energy, check_gpu
from dlbench.launch.doctor.machine import Check, CheckContext, Finding
from dlbench.launch.doctor.python import check_packages, check_python, check_torch
from dlbench.launch.doctor.runtimes import check_runtimes
from dlbench.launch.sites import settings_without_effect


def check_site_profile(context: CheckContext) -> list[Finding]:
    """Check the profile for settings without effect."""
    remarks = settings_without_effect(context.site) if context.site else ()
    return [Finding("profile", "warn", remark) for remark in remarks]


CHECKS: tuple[Check, ...] = (
    check_site_profile,
    check_python,
    check_torch,
    check_gpu,
    check_energy,
    check_network,
    check_mpi,
    check_slurm,
    check_pbs,
    check_runtimes,
    check_folders,
    check_mounts,
)
#: Checks on each node of a job before the first case, inside its container; without torch, so that they are fast.
NODE_CHECKS: tuple[Check, ...] = (check_python, check_packages, check_folders)


def run_checks(context: CheckContext, checks: Iterable[Check] | None = None) -> list[Finding]:
    """Run the checks and return all findings. A check that raises is itself a finding."""
    found: list[Finding] = []
    for check in CHECKS if checks is None else checks:
        try:
            found.extend(check(context))
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            found.append(Finding(name, "warn", f"check failed: {type(error).__name__}: {error}"))
    return found


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 if any finding is a failure."""
    return int(any(finding.level == "fail" for finding in findings))


def findings_as_text(findings: Iterable[Finding]) -> str:
    """Format findings as text: one line each, with the advice below."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<5} {finding.check:<16} {finding.text}")
        if finding.mend:
            lines.append(f"{'':<23}-> {finding.mend}")
    return "\n".join(lines)


def findings_as_json(findings: Iterable[Finding]) -> str:
    """Format findings as JSON, with host and time."""
    values = {
        "host": socket.gethostname(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": sys.version.split()[0],
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }
    return json.dumps(values, indent=1)
