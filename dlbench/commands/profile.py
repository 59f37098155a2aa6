"""`dlbench profile`: measure the time of each layer against its bound."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlbench.commands import arguments
from dlbench.commands.worker_job import STARTUP_MARGIN_S, parse_positive_time, run_worker
from dlbench.errors import BadInput
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.messages import say

if TYPE_CHECKING:
    from dlbench.results.bounds_records import ProfileRun


def add_parser(commands: Any) -> None:
    parser = arguments.add_command(commands, "profile", _run_profile_command, "resnet50 -P batch_size=64")
    arguments.add_model_argument(parser)
    arguments.add_override_option(
        parser, "set an axis (-P batch_size=64) or protocol key (-P protocol.seed=1); repeatable", "KEY=VALUE"
    )
    arguments.add_results_folder(parser, "results folder with the peaks that `dlbench ceilings` measured")
    arguments.add_path(parser, "-o", "--output", help="new folder for the profile (default: RESULTS/profiles/<id>)")
    parser.add_argument("--time", default="10s", metavar="TIME", help="measuring time (default: 10s)")
    parser.add_argument("--trace-steps", type=int, default=3, help="steps in the trace; 0 writes no trace (default: 3)")
    arguments.add_flag(parser, "--kernels", "CPU only: list the oneDNN kernels that one step calls")
    arguments.add_flag(parser, "--all", "print every layer, not only the 20 with the longest time above their bound")
    arguments.add_format_option(parser)


#: A longer trace is too large for any viewer.
MAX_TRACE_STEPS = 1000


def _run_profile_command(options: argparse.Namespace) -> int:
    from dlbench.launch.results_folder import require_writable_folder
    from dlbench.report.analysis.bounds import find_device_roofline
    from dlbench.report.chapters.bounds_tables import profile_table
    from dlbench.results import bounds_records, bounds_schema
    from dlbench.suites.suite import build_single_case

    # The worker resolves device "auto": this process does not load torch.
    case = build_single_case("profile", options.model, options.overrides)
    time_s = parse_positive_time(options.time, "--time")
    if not 0 <= options.trace_steps <= MAX_TRACE_STEPS:
        raise BadInput(f"--trace-steps is {options.trace_steps}; it must be from 0 to {MAX_TRACE_STEPS}")
    run_id, started_at = arguments.new_run_name(case.id)
    folder = options.output or options.results / bounds_schema.PROFILES_FOLDER / run_id
    if folder.exists():
        raise BadInput(f"'{folder}' already exists; choose another folder with -o")
    require_writable_folder(folder.parent)
    request = {"kind": "profile", "case": case.to_dict(), "time_s": time_s, "trace_steps": options.trace_steps}
    if options.kernels:
        request["kernels"] = True
    text = run_worker(request, folder, max(case.protocol.timeout_s, 3 * time_s + STARTUP_MARGIN_S))
    if text is None:
        return SOME_FAILED
    run = bounds_records.parse_run_json(bounds_records.ProfileRun, text, run_id=run_id, started_at=started_at)
    roof = find_device_roofline(bounds_schema.read_ceilings(options.results), run.where, case.precision)
    bounds_schema.write_layers(folder, run)
    _write_profile_files(folder, run, roof)
    arguments.print_tables(options.format, profile_table(run, roof, None if options.all else 20))
    if options.kernels:
        _print_kernels(folder, options.format)
    if roof.flop_source != "measured":
        to = "" if options.results == Path("results") else f" --results {shlex.quote(str(options.results))}"
        say(f"\n{options.results}/ has no measured {case.precision} peak of this system; run `dlbench ceilings{to}`")
    trace = ", trace.json.gz" if options.trace_steps else ""
    say(f"\nprofile: {folder}/ (layers.parquet, layers.csv, profile.json, figures{trace})")
    return OK


def _print_kernels(folder: Path, form: str) -> None:
    """Print the kernels of oneDNN, and write them as CSV beside its log."""
    from dlbench.report.listings.networks import kernels_table
    from dlbench.table import render

    table = kernels_table((folder / "onednn.txt").read_text(encoding="utf-8", errors="replace"))
    (folder / "kernels.csv").write_text(render(table, "csv"), encoding="utf-8")
    arguments.print_tables(form, table)


def _write_profile_files(folder: Path, run: ProfileRun, roof: Any) -> None:
    """Write the table (CSV, Markdown), the raw run (JSON) and the figures."""
    from dlbench.report.chapters.bounds_tables import profile_table
    from dlbench.report.figures import plots_bounds
    from dlbench.results.bounds_records import to_json
    from dlbench.table import render

    table = profile_table(run, roof, limit=None)
    (folder / "layers.csv").write_text(render(table, "csv"), encoding="utf-8")
    (folder / "layers.md").write_text(render(table, "markdown"), encoding="utf-8")
    (folder / "profile.json").write_text(to_json(run), encoding="utf-8")
    (folder / "result.json").unlink(missing_ok=True)  # the same data, without the run's name
    plots_bounds.write_profile_figures(folder, run, roof)
