"""`dlbench ceilings`: the peak FLOP/s and bandwidth of a device."""

import argparse
from pathlib import Path
from typing import Any

from dlbench.commands.arguments import (
    add_command,
    add_flag,
    add_format_option,
    add_results_folder,
    new_run_name,
    print_tables,
)
from dlbench.commands.worker_job import STARTUP_MARGIN_S, parse_positive_time, run_worker
from dlbench.exit_codes import OK, SOME_FAILED
from dlbench.messages import say


def add_parser(commands: Any) -> None:
    parser = add_command(commands, "ceilings", _run_ceilings_command, "--budget 30s")
    parser.add_argument("--device", default="auto", help="device: auto, cuda or cpu (default: auto)")
    add_results_folder(parser)
    parser.add_argument("--budget", default="45s", metavar="TIME", help="measuring time (default: 45s)")
    parser.add_argument(
        "--precision",
        metavar="NAME,...",
        help="precisions, such as fp32,amp_bf16 (default: all that the device supports)",
    )
    add_flag(parser, "--missing", "skip precisions that were already measured on this system")
    add_flag(parser, "--all", "print every shape, not only the best of each kind")
    add_format_option(parser)


def _run_ceilings_command(options: argparse.Namespace) -> int:
    from dlbench.errors import UnknownName
    from dlbench.launch.results_folder import require_writable_folder
    from dlbench.report.chapters.bounds_tables import ceilings_table
    from dlbench.results import bounds_records, bounds_schema
    from dlbench.suites.case import DEVICES

    if options.device not in DEVICES:
        raise UnknownName("device", options.device, DEVICES, "--device")
    budget_s = parse_positive_time(options.budget, "--budget")
    require_writable_folder(options.results)
    request = {"kind": "ceilings", "device": options.device, "budget_s": budget_s}
    if options.precision:
        request["precisions"] = options.precision.split(",")
    if options.missing:
        missing = _unmeasured_precisions(options.results, options.device, request.get("precisions"))
        request["precisions"] = missing
        if not missing:
            say("nothing to measure: the results already contain the ceilings of this system")
            return OK
    run_id, started_at = new_run_name()
    folder = options.results / bounds_schema.CEILINGS_FOLDER / run_id
    text = run_worker(request, folder, 2 * budget_s + STARTUP_MARGIN_S)
    if text is None:
        return SOME_FAILED
    run = bounds_records.parse_run_json(bounds_records.CeilingRun, text, run_id=run_id, started_at=started_at)
    part = bounds_schema.write_ceilings(options.results, run)
    print_tables(options.format, ceilings_table(bounds_schema.ceilings_frame(run), options.all))
    say(f"\nceilings: {part}")
    return OK


def _unmeasured_precisions(results: Path, device: str, wanted: list[str] | None) -> list[str]:
    """Precisions (from `wanted`, or all) without a measured ceiling of this system."""
    from dlbench.errors import DeviceUnavailable
    from dlbench.launch import probe
    from dlbench.report.analysis.bounds import MEASURED, find_device_roofline
    from dlbench.results import bounds_schema
    from dlbench.results.bounds_records import DeviceIdentity
    from dlbench.results.records import BUSY_SHARE

    found = probe.probe_machine()
    kind = found.device_kind if device == "auto" else device
    where = DeviceIdentity(
        system_key=found.system_keys.get(kind, found.system_key),
        device_kind=kind,
        device_name=found.facts["devices"][0]["name"] if kind == "cuda" and found.device_count else None,
        torch_threads=found.facts["torch_threads"],
    )
    ceilings = bounds_schema.read_ceilings(results)
    # Ceilings from a busy host count as missing: they are measured again.
    ceilings = ceilings[~ceilings["busy_share"].gt(BUSY_SHARE)]
    if kind == "cuda" and found.device_kind != "cuda":
        raise DeviceUnavailable("device 'cuda' was requested, but PyTorch finds no usable GPU here")
    names = wanted or found.facts["precisions"][kind]
    return [name for name in names if find_device_roofline(ceilings, where, name).flop_source != MEASURED]
