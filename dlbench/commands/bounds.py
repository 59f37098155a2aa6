"""`dlbench ceilings` and `dlbench profile`: what a device can reach, and how far from it each layer is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands.arguments import add_command, add_format, new_name, say, some_path

if TYPE_CHECKING:
    from dlbench.results.bounds_records import ProfileRun

#: What a worker may take beyond its time for measuring [s]: start-up, warm-up, counting, the trace.
_MARGIN_S = 300.0
#: A trace of more steps is too large for any viewer.
MOST_TRACE_STEPS = 1000


def add(commands: Any) -> None:
    """Register both commands on argparse's subparsers."""
    ceilings = add_command(
        commands, "ceilings", _ceilings, "measure the peak FLOP/s and bandwidth that a device reaches"
    )
    ceilings.add_argument("--device", default="auto", help="auto, cuda or cpu (default: auto)")
    ceilings.add_argument("--results", type=some_path, default=Path("results"), help="folder for the results")
    ceilings.add_argument("--budget", default="45s", metavar="TIME", help="time to measure (default: 45s)")
    ceilings.add_argument(
        "--precision", metavar="NAME,...", help="only these, such as fp32,amp_bf16 (default: all that the device has)"
    )
    ceilings.add_argument(
        "--missing", action="store_true", help="only precisions of which the results hold no ceilings of this system"
    )
    ceilings.add_argument("--all", action="store_true", help="every shape, not only the best of each kind")
    add_format(ceilings)

    profile = add_command(
        commands, "profile", _profile, "measure each layer's time, forward and backward, against its bound"
    )
    profile.add_argument("model", help="a name of `dlbench models --all`, or package.module:factory")
    profile.add_argument(
        "-P",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="set an axis (-P batch_size=64) or a protocol key (-P protocol.seed=1); may be repeated",
    )
    profile.add_argument("--results", type=some_path, default=Path("results"), help="where the ceilings are")
    profile.add_argument(
        "-o", "--output", type=some_path, help="folder to make (default: in the results, profiles/<id>)"
    )
    profile.add_argument("--time", default="10s", metavar="TIME", help="time to take steps (default: 10s)")
    profile.add_argument("--trace-steps", type=int, default=3, help="steps in the trace; 0 writes none (default: 3)")
    profile.add_argument("--all", action="store_true", help="every layer, not only the 20 that lose most")
    add_format(profile)


def _ceilings(options: argparse.Namespace) -> int:
    from dlbench.errors import UnknownName
    from dlbench.launch.results_folder import check_folder
    from dlbench.report.chapters.bounds_tables import ceilings_table
    from dlbench.results import bounds_records, bounds_schema
    from dlbench.suites.case import DEVICES
    from dlbench.table import render

    if options.device not in DEVICES:
        raise UnknownName("device", options.device, DEVICES, "--device")
    budget_s = _time(options.budget, "--budget")
    check_folder(options.results)
    request = {"device": options.device, "budget_s": budget_s}
    if options.precision:
        request["precisions"] = options.precision.split(",")
    if options.missing:
        request["precisions"] = missing = _missing(options.results, options.device, request.get("precisions"))
        if not missing:
            say("the results hold the ceilings of this system already")
            return 0
    run_id, started_at = new_name()
    folder = options.results / bounds_schema.CEILINGS_FOLDER / run_id
    text = _run_worker("dlbench.worker.jobs.ceilings", folder, request, 2 * budget_s + _MARGIN_S)
    if text is None:
        return 1
    run = bounds_records.named(bounds_records.ceiling_run(text), run_id, started_at)
    part = bounds_schema.write_ceilings(options.results, run)
    print(render(ceilings_table(bounds_schema.ceilings_frame(run), options.all), options.format), end="")
    say(f"\nceilings: {part}")
    return 0


def _missing(results: Path, device: str, wanted: list[str] | None) -> list[str]:
    """The precisions, of `wanted` or of all, in which no ceiling of this system was measured yet."""
    from dlbench.errors import DeviceUnavailable
    from dlbench.launch import probe
    from dlbench.report.analysis.bounds import MEASURED, find_roof
    from dlbench.results import bounds_schema
    from dlbench.results.bounds_records import Where
    from dlbench.results.records import BUSY_SHARE

    found = probe.probe()
    kind = found.device_kind if device == "auto" else device
    where = Where(
        system_key=found.system_keys.get(kind, found.system_key),
        device_kind=kind,
        device_name=found.facts["devices"][0]["name"] if kind == "cuda" and found.device_count else None,
        torch_threads=found.facts["torch_threads"],
    )
    ceilings = bounds_schema.read_ceilings(results)
    # Those of a busy host are better than none, and to be measured again.
    ceilings = ceilings[~ceilings["busy_share"].gt(BUSY_SHARE)]
    if kind == "cuda" and found.device_kind != "cuda":
        raise DeviceUnavailable("device 'cuda' asked for, but PyTorch finds no usable one here")
    names = wanted or found.facts["precisions"][kind]
    return [name for name in names if find_roof(ceilings, where, name).flop_source != MEASURED]


def _profile(options: argparse.Namespace) -> int:
    from dlbench.errors import BadInput
    from dlbench.launch.results_folder import check_folder
    from dlbench.report.analysis.bounds import find_roof
    from dlbench.report.chapters.bounds_tables import profile_table
    from dlbench.results import bounds_records, bounds_schema
    from dlbench.suites.suite import one_case
    from dlbench.table import render

    # The worker finds out what "auto" is here: the supervisor does not know torch.
    case = one_case("profile", options.model, options.overrides)
    time_s = _time(options.time, "--time")
    if not 0 <= options.trace_steps <= MOST_TRACE_STEPS:
        raise BadInput(f"--trace-steps is {options.trace_steps}; it must be from 0 to {MOST_TRACE_STEPS}")
    run_id, started_at = new_name(case.id)
    folder = options.output or options.results / bounds_schema.PROFILES_FOLDER / run_id
    if folder.exists():
        raise BadInput(f"'{folder}' exists; choose another folder with -o")
    check_folder(folder.parent)
    request = {"case": case.to_dict(), "time_s": time_s, "trace_steps": options.trace_steps}
    text = _run_worker(
        "dlbench.worker.jobs.profile", folder, request, max(case.protocol.timeout_s, 3 * time_s + _MARGIN_S)
    )
    if text is None:
        return 1
    run = bounds_records.named(bounds_records.profile_run(text), run_id, started_at)
    ceilings = bounds_schema.read_ceilings(options.results)
    roof = find_roof(ceilings, run.where, case.precision)
    bounds_schema.write_layers(folder, run)
    _write_outputs(folder, run, roof)
    print(render(profile_table(run, roof, None if options.all else 20), options.format), end="")
    if roof.flop_source != "measured":
        say(f"\nno {case.precision} ceilings of this system in {options.results}/: `dlbench ceilings` measures them")
    trace = ", trace.json.gz" if options.trace_steps else ""
    say(f"\nprofile: {folder}/ (layers.parquet, layers.csv, profile.json, figures{trace})")
    return 0


def _write_outputs(folder: Path, run: ProfileRun, roof: Any) -> None:
    """The table for machines and people, the raw run, and the figures."""
    from dlbench.report.chapters.bounds_tables import profile_table
    from dlbench.report.figures import plots_bounds
    from dlbench.results.bounds_records import to_json
    from dlbench.table import render

    table = profile_table(run, roof, limit=None)
    (folder / "layers.csv").write_text(render(table, "csv"), encoding="utf-8")
    (folder / "layers.md").write_text(render(table, "markdown"), encoding="utf-8")
    (folder / "profile.json").write_text(to_json(run), encoding="utf-8")
    (folder / "result.json").unlink(missing_ok=True)  # the same, without its name
    plots_bounds.write_figures(folder, run, roof)


def _run_worker(module: str, folder: Path, request: dict[str, Any], timeout_s: float) -> str | None:
    """The worker's result; None, with the reason on stderr, where it failed."""
    from dlbench.launch import job
    from dlbench.launch.processes import Stopped

    def tick(elapsed_s: float, phase: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{elapsed_s:.0f} s  {phase[:70]}", end="", file=sys.stderr, flush=True)

    try:
        return job.run(module, folder, request, timeout_s, tick)
    except job.JobFailed as error:
        say(f"dlbench: {error}")
        return None
    except Stopped as stop:
        say(f"stopped by {stop.signal_name}; nothing was kept but {folder}")
        return None
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def _time(text: str, option: str) -> float:
    from dlbench.errors import BadInput
    from dlbench.units import parse_duration

    time_s = parse_duration(text)
    if time_s <= 0:
        raise BadInput(f"{option} is {text}; it must be above 0 s")
    return time_s
