"""The chapter on bounds: what each device reaches at best, how far from it the networks are, and where they lose time.

All of it is read from what `dlbench ceilings`, `allreduce` and `profile` left beside the cases.
"""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dlbench import units
from dlbench.report.analysis.bounds import DeviceRoofline, find_device_roofline
from dlbench.report.analysis.case_selection import representative_network
from dlbench.report.analysis.content import Content
from dlbench.report.analysis.labels import case_name, sort_networks
from dlbench.report.chapters.bounds_runs import profile_command
from dlbench.report.chapters.bounds_tables import all_reduce_table, ceilings_table, none_if_missing, profile_table
from dlbench.report.document import Block, Plot, Section
from dlbench.report.figures import plots_bounds
from dlbench.results.bounds_records import DeviceIdentity, ProfileRun
from dlbench.suites.case import MODES, PRECISIONS

#: Figures are drawn for so many devices; the tables hold all.
MAX_DEVICES = 6
#: What to do for the figures of the others.
HOW_TO_DRAW_OTHERS = "For the missing figures, build a report of only those results, or give those results first."
#: So many layers of each profiled case stand in its table, those that lose most.
MAX_LAYERS = 15
_INTRODUCTION = (
    "A layer takes at least the time of its floating-point operations at the device's peak. It also takes at least the "
    "time to move its bytes at the memory bandwidth, unless they are cached. Peak and bandwidth are the highest values "
    "measured on the same system; the datasheet values are shown too, if known. A better implementation could save the "
    "time above the bound."
)


@dataclass(frozen=True)
class MeasuredDevice:
    """One device as bounds tell them apart, with what was measured on it."""

    name: str
    ceilings: pd.DataFrame
    profiles: tuple[ProfileRun, ...]  # of each case the latest

    def roofline_of_profile(self, run: ProfileRun) -> DeviceRoofline:
        """What the bound of a profile is taken from."""
        return find_device_roofline(self.ceilings, run.where, run.case["precision"])

    def run_ids_of_figure(self, profiles: Iterable[ProfileRun]) -> tuple[str, ...]:
        """The runs that a figure of these profiles is drawn from: theirs, and those of the ceilings."""
        return (*(run.run_id for run in profiles), *self.ceilings["run_id"].dropna().unique())


def bounds_section(content: Content) -> Section:
    """Ceilings beside the datasheet, where the time goes, the roofline, and the layers by time lost."""
    found = measured_devices(content)
    blocks = [Block(words=_INTRODUCTION)] if found else []
    blocks += _not_measured_blocks(content, found)
    many = len(found) > 1
    for number, device in enumerate(found, 1):
        blocks += _device_blocks(device, f"-{number}" if many else "", drawn=number <= MAX_DEVICES)
    if len(found) > MAX_DEVICES:
        left = ", ".join(device.name for device in found[MAX_DEVICES:])
        words = f"Figures show only the first {units.count_text(MAX_DEVICES, 'device')}. Without figures: {left}."
        blocks.append(Block(words=f"{words} {HOW_TO_DRAW_OTHERS}"))
    return Section("bounds", "Bounds", [*blocks, *_all_reduce_blocks(content)])


def measured_devices(content: Content) -> list[MeasuredDevice]:
    """Every device with ceilings or profiles, those with cases in this report first."""
    stored = content.bounds
    names: dict[tuple[object, ...], str] = {}
    ceilings: dict[tuple[object, ...], pd.DataFrame] = {}
    profiles: dict[tuple[object, ...], dict[str, ProfileRun]] = {}
    for _, rows in stored.ceilings.groupby("run_id", sort=False, dropna=False):
        first = rows.iloc[0]
        where = DeviceIdentity(**{f.name: none_if_missing(first[f.name]) for f in dataclasses.fields(DeviceIdentity)})
        names[_device_identity_key(where)] = _device_name(content, where)
        ceilings[_device_identity_key(where)] = pd.concat(
            [ceilings.get(_device_identity_key(where), rows.iloc[:0]), rows]
        )
    for run in stored.profiles:
        names[_device_identity_key(run.where)] = _device_name(content, run.where)
        profiles.setdefault(_device_identity_key(run.where), {})[f"{run.case} {run.network_key}"] = run
    order = list(content.system_names.values())
    found = [
        MeasuredDevice(
            name, ceilings.get(key, stored.ceilings.iloc[:0]), _sort_profile_runs(profiles.get(key, {}).values())
        )
        for key, name in names.items()
    ]
    return sorted(found, key=lambda d: (next((i for i, n in enumerate(order) if n in d.name), len(order)), d.name))


def _device_blocks(device: MeasuredDevice, suffix: str, drawn: bool) -> Iterator[Block]:
    if len(device.ceilings):
        yield Block(heading=f"Ceilings: {device.name}", table=ceilings_table(device.ceilings).without_title())
    runs = [(run, device.roofline_of_profile(run)) for run in device.profiles]
    if runs and drawn:
        yield from _profile_figure_blocks(device, runs, suffix)
    for run, roof in runs:
        table = profile_table(run, roof, MAX_LAYERS).without_title()
        yield Block(
            heading=f"Layers by time above their bound: {case_name(run.case)} ({device.name})", table=table, folded=True
        )


def _profile_figure_blocks(
    device: MeasuredDevice, runs: Sequence[tuple[ProfileRun, DeviceRoofline]], suffix: str
) -> Iterator[Block]:
    plot = plots_bounds.overhead_breakdown(plots_bounds.network_bounds_frame(runs))
    plot = _add_plot_name_suffix(plot, suffix, device.run_ids_of_figure(device.profiles))
    yield Block(heading=f"Where the time goes: {device.name}", plot=plot)
    works = {(run.case["mode"], run.case["precision"]): plots_bounds.mode_and_precision(run) for run in device.profiles}
    for key, title in works.items():
        same = [(run, roof) for run, roof in runs if (run.case["mode"], run.case["precision"]) == key]
        plot = plots_bounds.roofline(plots_bounds.layers_of_profiles(same), same[0][1], title)
        plot = _add_plot_name_suffix(
            plot, f"-{'-'.join(key)}{suffix}", device.run_ids_of_figure(run for run, _ in same)
        )
        yield Block(heading=f"Roofline: {device.name}, {', '.join(key)}", plot=plot)


def _all_reduce_blocks(content: Content) -> Iterator[Block]:
    groups = content.bounds.all_reduces.groupby(["system_key", "device_kind"], sort=False, dropna=False)
    for number, (_, rows) in enumerate(groups, 1):
        first = rows.iloc[0]
        cpu = none_if_missing(first["cpu_model"])
        name = _device_name(content, DeviceIdentity(first["system_key"], first["device_kind"], cpu_model=cpu))
        suffix = f"-{number}" if groups.ngroups > 1 else ""
        plot = _add_plot_name_suffix(
            plots_bounds.all_reduce_plot(rows), suffix, tuple(rows["run_id"].dropna().unique())
        )
        yield Block(heading=f"All-reduce: {name}", plot=plot)
        yield Block(heading=f"All-reduce: {name}, all sizes", table=all_reduce_table(rows).without_title(), folded=True)


def _not_measured_blocks(content: Content, found: Sequence[MeasuredDevice]) -> Iterator[Block]:
    """What was not measured, and the command that does it."""
    folder = next((source for source in content.sources if Path(source).is_dir()), "results")
    to = "" if folder == "results" else f" --results {shlex.quote(folder)}"
    profile = f"`{_example_profile_command(content)}{to}`"
    if not found:
        yield Block(
            words=f"The peak rates of this device were not measured: the only bounds in this report are those of its "
            f"datasheet, if known. Run `dlbench ceilings{to}` to measure the peak rates, and {profile} to measure the "
            f"time of every layer. The next report of these results will show both."
        )
    elif not any(len(device.ceilings) for device in found):
        words = f"These results contain profiles but no ceilings; run `dlbench ceilings{to}` to measure them."
        yield Block(words=words)
    elif not any(device.profiles for device in found):
        yield Block(words=f"These results contain no profile; run {profile} to measure the time of every layer.")
    above = int(content.shown["share_of_measured_peak"].gt(1).sum())
    if above:
        yield Block(
            words=f"{units.count_text(above, 'case')} reached more FLOP/s than the measured peak of the device. The "
            f"peak was measured under other conditions, or for too short a time. Run `dlbench ceilings{to}` again; the "
            f"highest result is used."
        )


def _example_profile_command(content: Content) -> str:
    """The command that profiles one of these cases."""
    shown = content.shown
    if shown.empty:
        return "dlbench profile MODEL"
    model = representative_network(shown)
    case = shown[shown["model"] == model].iloc[0].to_dict()
    # The layers of one device; a name of several networks also has the key of the network.
    alone = {"model": model.partition(" [")[0], "repeat": 0, "nodes": 1, "devices_per_node": 1}
    return shlex.join(profile_command(case | alone))


def _device_identity_key(where: DeviceIdentity) -> tuple[object, ...]:
    """On a CPU the number of threads makes another device."""
    cpu = where.device_kind == "cpu"
    return where.system_key, where.device_kind, where.device_name, where.torch_threads if cpu else None


def _device_name(content: Content, where: DeviceIdentity) -> str:
    """As the report calls the system, else by its hardware."""
    attempts = content.attempts
    same = attempts["system_key"].eq(where.system_key) & attempts["device"].eq(where.device_kind)
    ids = attempts.loc[same, "system_id"].unique()
    known = [name for system, name in content.system_names.items() if system in ids]
    threads = ""
    if where.device_kind == "cpu" and where.torch_threads:
        threads = units.count_text(where.torch_threads, "thread")
    # Records of earlier versions have one key for all numbers of threads.
    known = [name for name in known if f" {threads}" in name] or known
    name = ", ".join(known) or where.device_name or where.cpu_model or where.hostname or where.device_kind
    return f"{name}, {threads}" if threads and f" {threads}" not in name else name


def _sort_profile_runs(runs: Iterable[ProfileRun]) -> tuple[ProfileRun, ...]:
    runs = list(runs)
    places = sort_networks(run.case["model"] for run in runs)
    order = {name: i for i, name in enumerate([*places, *MODES, *PRECISIONS])}
    axes = ("model", "mode", "precision")
    return tuple(sorted(runs, key=lambda run: (*(order[run.case[a]] for a in axes), run.case["batch_size"])))


def _add_plot_name_suffix(plot: Plot, suffix: str, runs: tuple[str, ...]) -> Plot:
    return dataclasses.replace(plot, name=plot.name + suffix, runs=runs)
