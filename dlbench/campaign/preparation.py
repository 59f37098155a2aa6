"""Prepares the measurement of a suite on this machine, for `dlbench run` and `dlbench.run`."""

import os
from collections.abc import Sequence
from pathlib import Path

from dlbench import units
from dlbench.launch import launchers, probe, slurm
from dlbench.launch.results_folder import ResultsFolder, require_writable_folder
from dlbench.launch.supervise import Campaign
from dlbench.messages import say
from dlbench.suites.case import Case
from dlbench.suites.suite import Suite, models_of_cases


def prepare_campaign(
    suite: Suite, results: Path, launcher_name: str = "local", step: Sequence[str] = (), write: bool = True
) -> tuple[Campaign, list[Case]]:
    """The campaign that measures a suite here, and its processes in their order.

    Args:
        launcher_name: starts the ranks of a case.
        step: a command that starts them instead; see `slurm.step_launcher`.
        write: whether the results folder is to be made, and checked.

    Raises:
        BadInput: a value of the suite or the launcher cannot be used.
        DeviceUnavailable: a device that the suite names is not here.
    """
    planned = suite.cases()  # report wrong values before the slow device probe
    nodes = os.environ.get("DLBENCH_JOB_NODES", "").split()
    launcher = slurm.step_launcher(list(step), nodes=nodes) if step else launchers.find_launcher(launcher_name)
    launchers.check_launcher(launcher, planned)
    folder = None
    if write:
        require_writable_folder(results)
        folder = ResultsFolder(results)
    models = models_of_cases(planned)
    say("detecting the devices and software of this machine ...")
    asked = (
        slurm.rank_probe_argv(list(step), models)
        if step
        else launchers.rank_probe_argv(launcher_name, launcher, models)
    )
    found = probe.probe_machine(models, argv=asked)
    cases = [case for one in suite.process_rounds(device=found.device_kind) for case in one]
    probe.require_devices(cases, found)
    cases, left_out = probe.cases_fitting_on_gpus(cases, found)
    if left_out:
        say(left_out)
    campaign = Campaign(
        results,
        suite.name,
        suite.version,
        found.system_keys,
        launcher,
        network_keys=found.network_keys,
        network_files=found.network_files,
        machine=found.facts,
        folder=folder,
    )
    say(f"{suite.name}: {_count_cases_and_processes(cases)} on {found.description} -> {results}/")
    return campaign, cases


def _count_cases_and_processes(cases: list[Case]) -> str:
    """How many cases and processes: ``12 cases x 3 processes``."""
    num_cases = len({case.first_process_id for case in cases})
    text = units.count_text(num_cases, "case")
    if len(cases) == num_cases:
        return text
    if len(cases) % num_cases:
        return f"{text}, {len(cases)} processes"
    return f"{text} x {len(cases) // num_cases} processes"
