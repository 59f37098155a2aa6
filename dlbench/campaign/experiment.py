"""Runs and compares an interleaved A/B experiment: pairs of fresh processes, in random order."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench import units
from dlbench.campaign import results_maintenance
from dlbench.launch import supervise
from dlbench.launch.ab_experiment import Experiment, ExperimentProgress
from dlbench.launch.attempts import SystemKeys, system_key_of_device_kind
from dlbench.messages import say
from dlbench.results.records import DONE_STATUSES, Record

if TYPE_CHECKING:
    from dlbench.report.analysis.comparison import ComparisonResult
    from dlbench.report.analysis.comparison_matching import ComparisonRules


def run_experiment(
    experiment: Experiment,
    pairs: int,
    root: Path,
    system_keys: Sequence[SystemKeys],
    networks: Sequence[Mapping[str, str]],
    **campaign: Any,
) -> int:
    """Measure the incomplete pairs, both sides again; return the number of failed processes.

    Args:
        system_keys, networks: the keys of each side.
        campaign: further fields of `supervise.Campaign`, such as the launcher.
    """
    from dlbench.report.analysis.comparison import find_measured_pairs
    from dlbench.results import store

    results_maintenance.close_interrupted_attempts(root)
    results_maintenance.rebuild_parquet_parts(root, results_maintenance.read_stored_attempts(root).without_part)
    rows = _experiment_rows(root, experiment, system_keys, networks)
    whole = find_measured_pairs(rows, experiment.suite_names, experiment.matches, pairs)
    order = experiment.run_order(pairs)
    waiting = [pair for pair in order if (pair[0].match, pair[0].pair) not in whole]
    progress = ExperimentProgress(2 * len(order), [case for match in experiment.matches for case in match])
    progress.number = 2 * (len(order) - len(waiting))
    cases = units.count_text(len(experiment.matches), "case")
    say(f"{experiment.suite_names[0][:-2]}: {cases} x {units.count_text(pairs, 'pair')} -> {root}/")
    if whole:
        say(f"skipped: {units.count_text(len(whole), 'pair')} already measured")

    def store_record(record: Record) -> None:
        store.append_record(root, record, make_folder=False)
        progress.print_finished_case(record)

    of_side = {
        side: supervise.Campaign(
            root=root,
            suite=suite,
            suite_version=experiment.suite_version,
            system_key=key,
            on_record=store_record,
            on_tick=progress.show_running_case,
            on_note=say,
            label=experiment.label_of_side(side),
            environment=experiment.setting_of_side(side).environment,
            network_keys=of_networks,
            **campaign,
        )
        for side, suite, key, of_networks in zip("ab", experiment.suite_names, system_keys, networks, strict=True)
    }
    with contextlib.closing(progress):
        failed = sum(
            record.status not in DONE_STATUSES
            for pair in waiting
            for turn in pair
            for record in supervise.run_cases([turn.case], of_side[turn.side], fresh=True)
        )
    for remark in progress.describe_missing_intervals():
        say(f"{remark}; raise protocol.max_time_s")
    return failed


def compare_experiment(
    experiment: Experiment,
    pairs: int,
    root: Path,
    system_keys: Sequence[SystemKeys],
    networks: Sequence[Mapping[str, str]],
    rules: ComparisonRules,
) -> ComparisonResult:
    """Compare the two sides over the pairs measured so far."""
    from dlbench.report.analysis.comparison import compare_ab_sides
    from dlbench.report.analysis.comparison_matching import select_attempts_of_sides

    rows = _experiment_rows(root, experiment, system_keys, networks)
    return compare_ab_sides(
        select_attempts_of_sides(rows, experiment.suite_names), experiment.suite_names, experiment.matches, pairs, rules
    )


def _experiment_rows(
    root: Path, experiment: Experiment, system_keys: Sequence[SystemKeys], networks: Sequence[Mapping[str, str]]
) -> Any:
    """Return the rows of this experiment: of each side, on its system, with its current networks."""
    from dlbench.results import store

    rows = store.load(root)
    rows = rows[(rows["suite_version"] == experiment.suite_version) & rows["suite"].isin(experiment.suite_names)]
    keys = dict(zip(experiment.suite_names, system_keys, strict=True))
    of_networks = dict(zip(experiment.suite_names, networks, strict=True))
    wanted = [
        system_key_of_device_kind(keys[suite], device)
        for suite, device in zip(rows["suite"], rows["device"], strict=True)
    ]
    today = [of_networks[suite].get(model, "") for suite, model in zip(rows["suite"], rows["model"], strict=True)]
    return rows[(rows["system_key"] == wanted) & (rows["network_key"].fillna("") == today)]
