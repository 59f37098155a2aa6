"""A search for the fastest setting as a campaign: measured, stored and resumed as any other, and its suite file."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path

from dlbench.campaign import measure, preparation
from dlbench.campaign.setting_search import SettingSearch
from dlbench.launch import attempts
from dlbench.launch.supervise import Campaign
from dlbench.messages import say
from dlbench.suites.case import AXES, Case
from dlbench.suites.levers import TUNE_PREFIX, lever_values_to_try, setting_without_protocol
from dlbench.suites.suite import Suite


def run_search(first: Case, fixed: Collection[str], budget_s: float, goal: str, results: Path) -> SettingSearch:
    """Search from the default setting `first`; return the search with what it found.

    Args:
        first: its device may be "auto".
        fixed: axes that keep their value.
        budget_s: time to search [s].
        goal: "throughput" or "energy".
        results: folder of the records; settings that it holds are not measured again.

    Raises:
        BadInput, DeviceUnavailable: as `prepare_campaign`.
        StoppedBySignal: a signal stopped the search.
    """
    axes = {axis: (getattr(first, axis),) for axis in AXES if axis != "repeat"}
    suite = Suite(suite_name(first, fixed, goal), 1, "", axes, (), first.protocol, "tune", processes=1, max_processes=1)
    campaign, (shipped, *_) = preparation.prepare_campaign(suite, results)
    machine = campaign.machine
    values = lever_values_to_try(shipped, machine["precisions"][shipped.device], machine["torch_threads"])
    left = {axis: several for axis, several in values.items() if axis not in fixed}
    search = SettingSearch(shipped, left, budget_s, goal, say, fixed_batch="batch_size" in fixed)
    campaign = dataclasses.replace(campaign, label=goal)
    _replay_earlier_records(search, campaign)
    measure.measure_with_schedule(campaign, [shipped], True, search)
    return search


def suite_name(first: Case, fixed: Collection[str], goal: str) -> str:
    """Name of the suite in the records of a search: equal searches have equal names."""
    what = json.dumps([setting_without_protocol(first).to_dict(), sorted(fixed), goal], sort_keys=True)
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    return f"{TUNE_PREFIX}{file_safe_name(first.model)}-{first.mode}-{digest}"


def file_safe_name(model: str) -> str:
    """The name of a network with signs that suites and files may have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", model)[:60].strip("-.") or "network"


def best_setting_as_suite_toml(search: SettingSearch) -> str:
    """The suite file of the best setting: TOML."""
    best, default = search.best, Case("")
    axes = ["model", "mode", "batch_size", "device"]
    axes += [axis for axis in AXES if axis not in (*axes, "repeat") and getattr(best, axis) != getattr(default, axis)]
    gave = "; ".join(f"{change.text} x{change.ratio:.2f}" for change in search.gains_by_change()) or "default setting"
    lines = [
        f"name = {json.dumps(f'tuned-{file_safe_name(best.model)}-{best.mode}')}",
        "version = 1",
        f"description = {json.dumps(f'Best setting for {search.goal}, by dlbench tune: {gave}')}",
        "",
        "[axes]",
        *(f"{axis} = {json.dumps(getattr(best, axis))}" for axis in axes),
    ]
    return "\n".join(lines) + "\n"


def _replay_earlier_records(search: SettingSearch, campaign: Campaign) -> None:
    """Pass what an earlier, equal search measured here to this one."""
    root = campaign.root
    for folder, head in attempts.find_closed_attempts(root, attempts.list_attempt_folders(root)):
        key = attempts.record_key(head)
        if head.status != "preempted" and key == campaign.key(Case.from_dict(head.case)):
            search.add_record(attempts.read_full_record(folder, head), from_now=False)
